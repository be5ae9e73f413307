"""Errors of the hub as answers over HTTP."""

from __future__ import annotations

from ...errors import InvalidInput
from ...web import Problem, problem_for
from .. import errors
from ..documents import errors as documents
from ..models import errors as models

__all__ = ["problem_of"]

# The first that fits counts: what is special stands before what is general.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (errors.NotThere, 404),
    (models.UnknownModel, 404),
    (models.NotDownloaded, 409),
    (models.ModelInUse, 409),
    (errors.AlreadyUnderWay, 409),
    (errors.NoModel, 409),
    (errors.FolderMissing, 409),
    (models.WrongKind, 409),
    (models.ContextExceeded, 422),
    (models.InsufficientDisk, 507),
    (models.StoreLocked, 503),
    (models.DownloadError, 502),
    (models.ClientTimeout, 504),
    (models.ClientError, 502),
    (models.NotRunning, 503),
    (errors.LlamafileError, 500),
    (documents.TooLarge, 413),
    (documents.UnsupportedType, 415),
    (documents.BlockedUrl, 403),
    (documents.FetchError, 502),
    (errors.DocumentError, 422),
)


def problem_of(error: Exception) -> Problem | None:
    """Return what to answer where an error of ours was raised; None for any other.

    Whoever asks the hub was let in by its owner, so that the message of an error of the hub may be said in full.
    """
    if isinstance(error, InvalidInput):
        return Problem(422, str(error), code=_code(error))
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            headers = {"Retry-After": "1"} if status == 503 else {}
            return Problem(status, str(error), code=_code(error), headers=headers)
    return problem_for(error)


def _code(error: Exception) -> str:
    return str(getattr(error, "code", None) or type(error).__name__)
