"""What several tests ask of a folder."""
import hashlib
from pathlib import Path


def bits(folder: Path) -> dict[str, str]:
    """Hash of every file, by its path inside the folder."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.*"))}
