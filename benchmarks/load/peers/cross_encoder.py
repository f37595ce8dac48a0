"""A rerank server as many write it: FastAPI, an endpoint that is a plain function, and a CrossEncoder.

It runs in environments where nothing of ours is installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder

parser = argparse.ArgumentParser()
parser.add_argument("model", type=Path)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--backend", choices=("torch", "onnx", "openvino"), default="torch")
parser.add_argument("--threads", type=int, required=True)
options = parser.parse_args()

torch.set_num_threads(options.threads)
chosen = {}
if options.backend != "torch":
    pattern = {"onnx": "onnx/*qint8*.onnx", "openvino": "openvino/*qint8*.xml"}[options.backend]
    chosen = {"model_kwargs": {"file_name": str(next(options.model.glob(pattern)).relative_to(options.model))}}
model = CrossEncoder(str(options.model), backend=options.backend, device="cpu", **chosen)
app = FastAPI()


class RerankRequest(BaseModel):
    """A query and the documents to rank."""

    query: str
    documents: list[str]


@app.get("/health")
def health() -> dict[str, str]:
    """Say that the model is there."""
    return {"status": "ok"}


@app.post("/rerank")
def rerank(request: RerankRequest) -> dict[str, list[dict[str, float]]]:
    """Rank the documents."""
    scores = model.predict([(request.query, document) for document in request.documents], show_progress_bar=False)
    order = scores.argsort()[::-1]
    return {"results": [{"index": int(index), "relevance_score": float(scores[index])} for index in order]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=options.port)
