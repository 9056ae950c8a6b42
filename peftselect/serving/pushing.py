"""A run on a hub: which files would go there, and sending them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftselect.errors import InputError
from peftselect.serving.saved import read_record, read_saved

#: what stays here: the rows people were scored on, and pages made from them
PRIVATE = frozenset({"predictions.jsonl", "report.html"})


@dataclass(frozen=True)
class Upload:
    """A repository and the files for it, with bytes; ``kept_back`` are those that stay here, ``warnings`` sentences."""

    repository: str
    folder: Path
    files: dict[str, int]
    kept_back: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "schema": 1,
            "repository": self.repository,
            "files": self.files,
            "kept_back": list(self.kept_back),
            "warnings": list(self.warnings),
        }


def prepare(folder: str | Path, repository: str, *, with_predictions: bool = False) -> Upload:
    """What would be sent; InputError where ``folder`` is no run or ``repository`` no OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    read_record(folder)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository!r} is no name of a repository", "write OWNER/NAME") from error
    path = Path(folder)
    every = {str(item.relative_to(path)): item.stat().st_size for item in sorted(path.rglob("*")) if item.is_file()}
    back = () if with_predictions else tuple(name for name in every if name in PRIVATE)
    base = read_saved(path).model
    warnings = []
    if Path(base).exists():
        warnings.append(f"the base model is a folder of this machine ({base}): say on the card where others find it")
    files = {name: size for name, size in every.items() if name not in back}
    return Upload(repository, path, files, back, tuple(warnings))


def push(upload: Upload, *, private: bool) -> str:
    """Send the files and return the repository's address; InputError with the hub's own words where it refuses."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(upload.repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=upload.repository,
            folder_path=upload.folder,
            allow_patterns=list(upload.files),
            commit_message="Adapter trained by peftselect",
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, LocalTokenNotFoundError, OSError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{upload.repository} could not be written ({first})", "`hf auth login`, or --dry-run"
        ) from error
    return f"https://huggingface.co/{upload.repository}"
