"""Prints the lowest releases that a wheel promises to work with, for pip's --constraint: `lowest.py WHEEL EXTRA...`."""

import re
import sys
import zipfile
from email.parser import Parser

wheel, *extras = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
for requirement in metadata.get_all("Requires-Dist", []):
    needed, _, condition = requirement.partition(";")
    extra = re.search(r"extra == [\"'](.*)[\"']", condition)
    bound = re.match(r"([\w.-]+)(?:\[.*\])? *.*>=([\w.]+)", needed)
    if bound and (extra is None or extra[1] in extras):
        print(f"{bound[1]}=={bound[2]}")
