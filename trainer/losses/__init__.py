"""Distillation losses. Each is a sum over a slice divided by the size of the global batch, so that slices add up."""

from trainer.losses.attention import attention_loss
from trainer.losses.hidden import hidden_loss
from trainer.losses.logits import label_loss, soft_label_loss

__all__ = ["attention_loss", "hidden_loss", "label_loss", "soft_label_loss"]
