"""Rows of a causal language model: texts, completions of prompts, or conversations, and the tokens to predict.

``files`` finds the documents of a text file; ``texts`` makes rows of these, and of the rows of data files, by way of
``rows``; ``made`` is the account of it.
"""
