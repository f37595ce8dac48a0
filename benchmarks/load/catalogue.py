"""The servers that are compared, how each is started, and how it comes by its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.serving.catalogue import Model, Precision

#: ``ours``, or the name of the peer whose engines are told apart.
Kind = Literal["ours", "infinity", "cross_encoder"]
#: Words of a command that are filled in: the model's folder, the port, and the threads.
MODEL, PORT, THREADS = "{model}", "{port}", "{threads}"
_CROSS_ENCODER = str(Path(__file__).parent / "peers" / "cross_encoder.py")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server.

    Attributes:
        title: What it is called.
        kind: Its sort.
        precision: What it computes in.
        model: A name of `MODELS`; empty where it takes the master with one logit as it is.
        environment: The virtual environment it runs in, a file of `benchmarks/serving/peers`; empty for the Python
            that runs this.
        arguments: Of that Python.
        variant: Of ours.
        environ: Variables beyond those that all have.
        inside: Whether it is started in the model's folder.
    """

    title: str
    kind: Kind
    precision: Precision
    arguments: tuple[str, ...]
    model: str = ""
    environment: str = ""
    variant: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    inside: bool = False

    def command(self, python: str, *, model: Path, port: int, threads: int) -> list[str]:
        """Return the command line."""
        words = {MODEL: str(model), PORT: str(port), THREADS: str(threads)}
        return [python, *(words.get(word, word) for word in self.arguments)]


MODELS: dict[str, Model] = {
    "manylens_onnx": Model(module="manylens", options={"variants": ["onnx_fp32", "onnx_int8"]}),
    "manylens_openvino": Model(module="manylens", options={"variants": ["onnx_fp32", "openvino_int8"]}),
    "infinity_onnx": Model(module="infinity", one_logit=True),
    "cross_encoder_onnx": Model(
        module="sentence_transformers",
        environment="sentence-transformers-onnx",
        one_logit=True,
        options={"backend": "onnx"},
    ),
    "cross_encoder_openvino": Model(
        module="sentence_transformers",
        environment="sentence-transformers-openvino",
        one_logit=True,
        options={"backend": "openvino"},
    ),
}


def ours(
    variant: str, title: str, precision: Precision, *, options: tuple[str, ...] = ("--cache-products", "0")
) -> Server:
    """Return our server of a variant; without its memory of products by default, which no peer has."""
    arguments = ("-c", "from manylens.cli import app; app()", "serve", MODEL, "--port", PORT, "--threads", THREADS)
    return Server(
        title=f"manylens serve, {title}",
        kind="ours",
        precision=precision,
        model=f"manylens_{variant.partition('_')[0]}",
        arguments=(*arguments, "--variant", variant, *options),
        variant=variant,
    )


def _infinity(engine: str, title: str, precision: Precision, model: str = "") -> Server:
    command = "from infinity_emb.cli import cli; cli()"
    graphs = engine == "optimum"
    return Server(
        title=f"infinity, {title}",
        kind="infinity",
        precision=precision,
        model=model,
        environment="infinity-onnx" if graphs else "infinity",
        arguments=(
            # Of a folder elsewhere it hands optimum the whole path of the graph, where optimum wants its name.
            *("-c", command, "v2", "--model-id", "." if graphs else MODEL, "--served-model-name", "model"),
            *("--host", "127.0.0.1", "--port", PORT, "--engine", engine, "--device", "cpu"),
        ),
        environ={
            "DO_NOT_TRACK": "1",
            "INFINITY_ANONYMOUS_USAGE_STATS": "0",
            **({"HF_HUB_CACHE": "../infinity.cache"} if graphs else {}),  # Where it writes the graph that it optimised.
        },
        inside=graphs,
    )


def _cross_encoder(backend: str, title: str, precision: Precision, environment: str = "") -> Server:
    return Server(
        title=f"FastAPI and CrossEncoder, {title}",
        kind="cross_encoder",
        precision=precision,
        model=f"cross_encoder_{backend}" if environment else "",
        environment=environment,
        arguments=(_CROSS_ENCODER, MODEL, "--port", PORT, "--backend", backend, "--threads", THREADS),
    )


SERVERS: dict[str, Server] = {
    "manylens_onnx_fp32": ours("onnx_fp32", "ONNX Runtime", "fp32"),
    "manylens_onnx_int8": ours("onnx_int8", "ONNX Runtime", "int8"),
    "manylens_openvino_int8": ours("openvino_int8", "OpenVINO", "int8"),
    "infinity_torch": _infinity("torch", "its torch engine", "fp32"),
    "infinity_onnx": _infinity("optimum", "its optimum engine", "int8", "infinity_onnx"),
    "cross_encoder_torch": _cross_encoder("torch", "torch", "fp32"),
    "cross_encoder_onnx": _cross_encoder("onnx", "ONNX", "int8", "sentence-transformers-onnx"),
    "cross_encoder_openvino": _cross_encoder("openvino", "OpenVINO", "int8", "sentence-transformers-openvino"),
}
