"""Packs the package `tiny-field` as registries have it: a wheel, a module of Go's, a tarball of npm's,
and a crate. Argument: the directory to put them in."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

WHEEL = {
    "tiny_field/__init__.py": "WORD = 'from the wheel'\n",
    "tiny_field-1.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny-field\nVersion: 1.0.0\n",
    "tiny_field-1.0.0.dist-info/WHEEL": (
        "Wheel-Version: 1.0\nGenerator: field\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
    "tiny_field-1.0.0.dist-info/RECORD": (
        "tiny_field/__init__.py,,\ntiny_field-1.0.0.dist-info/METADATA,,\n"
        "tiny_field-1.0.0.dist-info/WHEEL,,\ntiny_field-1.0.0.dist-info/RECORD,,\n"
    ),
}
MODULE = {
    "example.com/tiny@v1.0.0/go.mod": "module example.com/tiny\n",
    "example.com/tiny@v1.0.0/tiny.go": "package tiny\n",
}
TARBALL = {
    "package/package.json": '{"name": "tiny-field", "version": "1.0.0", "main": "index.js"}\n',
    "package/index.js": "module.exports = 'from the tarball';\n",
}
CRATE = {
    "tiny-field-1.0.0/Cargo.toml": '[package]\nname = "tiny-field"\nversion = "1.0.0"\n',
    "tiny-field-1.0.0/src/lib.rs": "",
}


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)


def tarred(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))


to = Path(sys.argv[1])
zipped(to / "wheel", WHEEL)
zipped(to / "module", MODULE)
tarred(to / "tarball", TARBALL)
tarred(to / "crate", CRATE)
