"""A build over plain text: rows packed into a spool inside the cache, which the finished cache no longer has.

How many rows a corpus makes is known only once it is tokenized, which may take hours. So what stands in the folder
already is compared first, with everything but the number of rows, from a digest of the file alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hskcache.build.job import Job, corpus_info, prepare_corpus_job, request_of
from hskcache.build.resolving import check_corpus_spec
from hskcache.build.site import Site
from hskcache.encoder import takes_token_types
from hskcache.errors import CacheError
from hskcache.spec import Spec
from hskcache.store.manifest import Manifest, Request
from hskcache.teacher.inputs import SavedTokenizer, save_tokenizer
from hskcache.teacher.load import Teacher
from hskcache.text import Spool, corpus_fingerprint, pack_corpus


@dataclass(frozen=True, eq=False)
class CorpusBuild:
    """A corpus to be run through an encoder.

    Attributes:
        teacher: an encoder without a classifier.
        path: the text file.
        spec: what to keep.
    """

    teacher: Teacher
    path: Path
    spec: Spec

    @cached_property
    def tokenizer(self) -> SavedTokenizer:
        """The tokenizer's files as they stand in the cache."""
        return save_tokenizer(self.teacher.tokenizer, self.has_token_types)

    def finished(self, site: Site) -> Manifest | None:
        """The manifest of the cache that this build would write, if it stands there with all its files, else None.

        Raises:
            MismatchError: the site holds something else.
            DamageError: its manifest or request cannot be read.
            DataError: the file cannot be read.
        """
        manifest = self.written(site)
        # A process that is at it, or died after the manifest, has left this; the last one to leave removes it.
        return None if site.is_claimed() else manifest

    def written(self, site: Site) -> Manifest | None:
        """As :meth:`finished`, whether or not other processes are still at it."""
        # What is wrong with the spec is said before anything is read.
        spec = self._resolved
        found = site.request()
        if found is None:
            return None
        site.require_same(self._request(found, spec))
        return site.written(self.tokenizer.sha256)

    def job(self, spool: Path, on_bytes: Callable[[int], None] | None = None) -> Job:
        """Tokenize and pack the corpus, or take the rows that a build which was cut off has left.

        Args:
            spool: where the rows stand until the build is done; that of the site's ``packing``, or any folder.
            on_bytes: called with the number of bytes of the file done since the last call.

        Raises:
            DataError, SpecError, TeacherError: as packing and :func:`~hskcache.build.job.prepare_corpus_job` do.
            CacheError: the spool cannot be written.
        """
        spec = self._resolved
        place = Spool(spool, self.tokenizer.sha256, spec.packing)
        try:
            corpus = pack_corpus(self.path, self.teacher.tokenizer, spec.max_length, place, on_bytes)
        except OSError as error:
            raise CacheError(
                f"cannot write {spool}: {error.strerror or error}; the tokens of a corpus need about as much space as "
                "its text: mend that and run the same command again"
            ) from error
        return prepare_corpus_job(self.teacher, corpus, spec)

    @cached_property
    def _resolved(self) -> Spec:
        return check_corpus_spec(self.spec, self.teacher)

    @property
    def has_token_types(self) -> bool:
        """True if the encoder tells two texts of a row apart, and its tokenizer says which is which."""
        return takes_token_types(self.teacher.model) and "token_type_ids" in self.teacher.tokenizer.model_input_names

    def _request(self, found: Request, spec: Spec) -> Request:
        """Request of this build, if the corpus makes as many rows as the one found."""
        fingerprint = corpus_fingerprint(self.path, spec.max_length, spec.packing)
        data = corpus_info(str(self.path), fingerprint, found.data.num_rows)
        shard_rows = spec.shard_rows or found.shard_rows
        return request_of(self.teacher, (spec, shard_rows), data, (self.tokenizer.sha256, self.has_token_types))
