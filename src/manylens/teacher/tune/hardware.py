"""What the machine offers: precision, and memory that is given back."""

from __future__ import annotations

import gc


def hardware_options() -> dict[str, bool]:
    """Return bf16 where a GPU computes it; on a CPU training is in fp32."""
    import torch

    if torch.cuda.is_available():
        return {"bf16": torch.cuda.is_bf16_supported()}
    return {"use_cpu": True, "bf16": False}


def release_memory() -> None:
    """Give back what models that are no longer in use held, on the GPU to other processes, too."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
