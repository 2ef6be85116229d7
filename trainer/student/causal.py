"""Make a student that is a causal language model, from a config without weights or from a checkpoint."""

from dataclasses import dataclass

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hskcache.errors import MismatchError, TeacherError
from hskcache.model.causal import draw_causal, is_causal, load_causal, require_causal
from hskcache.model.load import load_config
from trainer.student.create import seeded
from trainer.student.origin import STUDENTS, has_no_weights, is_preset


@dataclass(frozen=True)
class LanguageInterface:
    """Token ids that a causal student must know: those that its teacher gives probabilities of, and the marks of texts.

    ``vocab_size``: ids of the teacher, V, which may be more than the tokenizer has.
    """

    vocab_size: int
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, vocab_size: int | None = None) -> "LanguageInterface":
        """Interface to a tokenizer; ``vocab_size``: of the teacher, None: no more than the tokenizer has."""
        size = 1 + max(tokenizer.get_vocab().values())
        return cls(max(size, vocab_size or 0), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)


def create_causal(source: str, interface: LanguageInterface, seed: int = 0) -> PreTrainedModel:
    """A causal student on the CPU in float32, in eval mode; random weights are drawn from ``seed``.

    Raises TeacherError if the source cannot be read, its weights do not fit its config, or it is no causal language
    model; MismatchError if the checkpoint has too small a vocabulary.

    Args:
        source: a config.json or a folder without weights (random weights), a folder with weights, or a hub id.
        interface: ids that it must know.
        seed: of the random weights; the global generators stay untouched.
    """
    if is_preset(source):
        raise TeacherError(
            f"{source} is a shape of an encoder, and a student of a language model is one, too: give its config.json "
            "or make one of the teacher's layers: hsktrain create --from TEACHER --layers uniform:N"
        )
    config = load_config(source, "a student")
    if not has_no_weights(source):
        require_causal(source, config, "a student")
        if config.vocab_size < interface.vocab_size:
            raise MismatchError(
                f"{source} knows {config.vocab_size:,} token ids and the teacher says {interface.vocab_size:,}; a "
                "student that starts from weights needs the teacher's vocabulary"
            )
        return load_causal(source, "a student", config=config)
    _describe(config, interface)
    with seeded(seed):
        model = draw_causal(source, config, "a student")
    model.generation_config = GenerationConfig(
        bos_token_id=interface.bos_token_id, eos_token_id=interface.eos_token_id, pad_token_id=interface.pad_token_id
    )
    return model


def is_causal_source(source: str) -> bool:
    """True if a student, or what it is made of, is a causal language model.

    One that cannot be read is none: whoever loads it tells why. ``source``: what create_causal takes, or a name of
    STUDENTS.
    """
    if source in STUDENTS:
        return False
    try:
        return is_causal(load_config(source, "a student"))
    except TeacherError:
        return False


def _describe(config: PreTrainedConfig, interface: LanguageInterface) -> None:
    """Write the ids into the configuration of a student without weights."""
    pad = interface.pad_token_id
    # Embeddings learn nothing of the padding id, and a token that ends texts must be learned.
    padding = None if pad in {interface.bos_token_id, interface.eos_token_id} else pad
    config.update(
        {
            "vocab_size": interface.vocab_size,
            "bos_token_id": interface.bos_token_id,
            "eos_token_id": interface.eos_token_id,
            "pad_token_id": padding,
        }
    )
