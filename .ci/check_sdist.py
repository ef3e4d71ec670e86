"""A source distribution has every file of the tree but those that only git needs: `check_sdist.py TREE ARCHIVE`."""

import sys
import tarfile
from pathlib import Path

tree = Path(sys.argv[1])
with tarfile.open(sys.argv[2]) as archive:
    packed = {str(Path(*Path(member.name).parts[1:])) for member in archive if member.isfile()}
made = {"build", "dist"}
kept = {str(p.relative_to(tree)) for p in tree.rglob("*") if p.is_file() and not made & set(p.relative_to(tree).parts)}
kept = {name for name in kept if ".egg-info" not in name and "__pycache__" not in name and ".cache" not in name}
missing = kept - packed - {".gitignore", ".gitattributes"}
assert not missing, f"not in the source distribution: {sorted(missing)}"
