"""Files of a model on the hub, at one commit: downloaded once, or a message why not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from interpflow.errors import UserError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def pinned_name(entry: str, *, what: str, where: str, choices: str, lost: str) -> tuple[str, str]:
    """(owner/name, revision) of an entry that is no directory.

    what, choices, lost: for the messages, what kind of model it is, what may be named instead, and
    what a model without a revision makes impossible to reproduce. Raises UserError, naming
    `where`, for what is no hub id and for one without its revision.
    """
    name, _, revision = entry.partition("@")
    if not HUB_ID.fullmatch(name) or name.startswith(".") or Path(entry).expanduser().is_absolute():
        raise UserError(
            f"there is no {what} {entry!r}: no such directory",
            where=where,
            remedy=f"name {choices}, a directory, or a model of the hub as owner/name@revision",
        )
    if not revision:
        raise UserError(
            f"{name} needs a revision, or its {lost} cannot be reproduced",
            where=where,
            remedy=f"write {name}@revision with a commit of the model's repository; there is no "
            "directory of that name",
        )
    return name, revision


def download(
    repository: str, revision: str, *, where: str, allowed: Sequence[str], ignored: Sequence[str]
) -> Path:
    """The directory that holds the files of a hub repository at one commit.

    allowed, ignored: patterns of the files that are fetched. where: what an error names.
    Raises UserError when the hub has no such model or revision, refuses access, or cannot be
    reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(allowed),
                ignore_patterns=list(ignored),
            )
        )
    except errors.GatedRepoError as error:
        what = "access to this model is granted on request"
        remedy = "accept its conditions on its page, then run `hf auth login`"
        cause: Exception = error
    except errors.RevisionNotFoundError as error:
        what, remedy, cause = "the hub has no such revision", "correct the revision", error
    except errors.RepositoryNotFoundError as error:
        what = "the hub has no such model, or it is private"
        remedy, cause = "correct the id, or run `hf auth login`", error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        what = "the model is not in the local cache and the hub is offline or cannot be reached"
        remedy = (
            f"download it where there is a network (`hf download {repository} "
            f"--revision {revision}`), unset HF_HUB_OFFLINE, or name a directory instead"
        )
        cause = error
    except (errors.HfHubHTTPError, OSError) as error:
        what, remedy, cause = f"the hub cannot be reached: {error}", "try again later", error
    raise UserError(what, where=where, remedy=remedy) from cause
