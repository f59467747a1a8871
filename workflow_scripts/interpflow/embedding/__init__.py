"""Texts as vectors of their meaning, and whether one text follows from another."""

from interpflow.embedding.model_files import embedding_identity
from interpflow.embedding.sentences import embed_texts

__all__ = ["embed_texts", "embedding_identity"]
