import subprocess
import sys

import pytest

from manylens.errors import MissingExtraError
from manylens.evaluation._optional import optional


def test_a_missing_library_is_named_with_its_extra() -> None:
    with pytest.raises(
        MissingExtraError, match=r"no_such_library is not installed; run: pip install 'manylens\[train\]'"
    ):
        optional("no_such_library.part")


def test_importing_the_package_loads_no_optional_library() -> None:
    heavy = {"datasets", "ir_measures", "scipy", "sklearn", "torch", "transformers"}
    code = f"import sys, manylens.evaluation; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
