"""The rerank server: the contracts of text-embeddings-inference, Cohere and Jina over a `Scorer`."""
