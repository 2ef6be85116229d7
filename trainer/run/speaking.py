"""Texts that score a causal language model while it learns."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hskcache.errors import SpecError
from hskcache.metrics import BITS_PER_BYTE, PERPLEXITY
from hskcache.nearest import meant
from hskcache.store.files import sha256_hex
from hskcache.text import TokenizedRows
from hskcache.text.language.sources import check_language, is_text, read_language
from hskcache.text.memory import Source
from trainer.likelihood import answers_of, scores_of
from trainer.recipe import Recipe
from trainer.run.baselines import Baselines
from trainer.run.scoring import Scorer, Scoring


class LanguageScorer(Scorer[Source]):
    """Texts that a causal language model is to say."""

    def read(self, data: Source) -> Source:
        """A source, once it is seen that it can be read."""
        check_language(data, self.layout, self._is_one_document(data))
        return data

    def check_without(self, recipe: Recipe) -> None:
        """Raise SpecError as for any, for columns of rows, or for an unknown metric."""
        if best := [f"--set {stage.name}.select=last" for stage in recipe.stages if stage.select == "best"]:
            raise SpecError(
                f"give --eval-data FILE, texts that pick the best epoch, or keep the last: {' '.join(best)}"
            )
        if not self.layout.is_empty:
            raise SpecError("columns are those of --eval-data, and none is given; leave them out")
        self._chosen()

    def tokenized(self, found: Source, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizedRows:
        """Rows made as those of the knowledge."""
        one_document = self._is_one_document(found)
        return read_language(found, self.layout, tokenizer, max_length, one_document).rows

    def scoring(self, found: Source, rows: TokenizedRows, teacher: PreTrainedModel | None, bf16: bool) -> Scoring:
        """Bits a byte and perplexity, beside those of a teacher in the loop."""

        def score(student: PreTrainedModel) -> dict[str, float]:
            return scores_of(answers_of(student, rows, bf16=bf16).logp_T, rows.num_bytes)

        def baselines() -> Baselines:
            return Baselines() if teacher is None else Baselines(teacher=score(teacher))

        metric = self._chosen() or (BITS_PER_BYTE if rows.num_bytes else PERPLEXITY)
        fingerprint = sha256_hex(rows.offsets.tobytes() + rows.input_ids.tobytes())
        return Scoring(score, metric, fingerprint, baselines)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The best evaluation is kept where the recipe says nothing of it."""
        return recipe.scored()

    def _chosen(self) -> str | None:
        known = (BITS_PER_BYTE, PERPLEXITY)
        if self.metric is not None and self.metric not in known:
            raise SpecError(
                f"--metric {self.metric} is not one of language models; choose among {', '.join(known)}"
                f"{meant(self.metric, known)}"
            )
        return self.metric

    def _is_one_document(self, data: Source) -> bool:
        """True if a text file is read as one document, as that of the knowledge was."""
        made = self.knowledge.request.data.provenance
        return is_text(data) and made is not None and made.language is not None and made.language.one_document
