#!/usr/bin/env python3
"""Writes a container image of one layer, as a docker-archive:

    archive.py OUT.tar NAME:TAG [--from DIRECTORY] [--entrypoint WORD]... [FILE=PATH]... [LINK->TARGET]...

Without files it is an image that has nothing but the directory /nix."""

import argparse
import hashlib
import io
import json
import os
import tarfile


def layer(files, directory):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        made = set()

        def directories(path):
            parts = path.strip("/").split("/")
            for n in range(1, len(parts) + 1):
                name = "/".join(parts[:n])
                if name and name not in made:
                    made.add(name)
                    entry = tarfile.TarInfo(name)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)

        directories("nix")
        for file in files:
            if "->" in file:
                path, target = file.split("->")
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                directories(os.path.dirname(path))
                tar.addfile(entry)
            else:
                source, path = file.split("=", 1)
                directories(os.path.dirname(path))
                tar.add(source, path.lstrip("/"), filter=as_root)
        if directory:
            tar.add(directory, ".", filter=as_root)
    return out.getvalue()


def as_root(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("name")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--from", dest="directory")
    parser.add_argument("--entrypoint", action="append", default=[])
    args = parser.parse_args()

    content = layer(args.files, args.directory)
    digest = hashlib.sha256(content).hexdigest()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = json.dumps({
        "architecture": arch,
        "os": "linux",
        "config": {"Entrypoint": args.entrypoint, "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
        "history": [{"created_by": "archive.py"}],
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps(
        [{"Config": config_name, "RepoTags": [args.name], "Layers": [digest + ".tar"]}]
    ).encode()
    with tarfile.open(args.out, "w") as tar:
        for name, data in (
            (config_name, config),
            (digest + ".tar", content),
            ("manifest.json", manifest),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


main()
