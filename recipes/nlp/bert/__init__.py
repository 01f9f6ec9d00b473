"""BERT: a small one pretrained on plain text, and one module for each kind of head."""

from recipes.catalog import submodules
from recipes.nlp.bert.encoder import load_encoder, mean_pool, open_encoder
from recipes.nlp.bert.subwords import Subwords, SubwordTexts, encode_texts, train_subwords
from recipes.nlp.bert.task import BertOptions, MaskedLM, guess_words, mask_words, run, train

__getattr__ = submodules(__name__)
