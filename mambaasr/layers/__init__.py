"""Mixers and blocks made of ops. They import torch alone and work without ESPnet."""
