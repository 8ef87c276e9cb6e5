#!/usr/bin/python3
"""Fails when a file under src/ includes a folder, or a vendor's header, that tools/layers.toml does not allow.

    tools/check_layers.py [--root DIR]

Prints one line per offence, `FILE:LINE: what; what is allowed`, and exits 1; exits 0 when there is none.
"""
import argparse
import pathlib
import re
import sys
import tomllib

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCES = {".h", ".hpp", ".cpp", ".inc"}


def closure(layers):
    """folder -> every folder it may include, itself among them. The table is a graph without cycles, or we refuse it."""
    done = {}

    def visit(folder, path):
        if folder in path:
            raise SystemExit(f"check_layers: error: layers.toml has a cycle: {' -> '.join(path + [folder])}")
        if folder not in layers:
            raise SystemExit(f"check_layers: error: layers.toml: '{path[-1]}' stands on unknown folder '{folder}'")
        if folder not in done:
            done[folder] = {folder}.union(*(visit(below, path + [folder]) for below in layers[folder]))
        return done[folder]

    for folder in layers:
        visit(folder, [])
    return done


def layer_of(path, layers):
    """The longest entry of the table that `path` (relative to src/) lies in, or None."""
    parts = pathlib.PurePosixPath(path).parts[:-1]
    for n in range(len(parts), 0, -1):
        if "/".join(parts[:n]) in layers:
            return "/".join(parts[:n])
    return None


def check(root):
    """All offences in `root`/src, and how many files and includes were looked at."""
    table = tomllib.loads((root / "tools" / "layers.toml").read_text())
    layers, vendors, exceptions = closure(table["layers"]), table["vendors"], table["files"]
    offences, files, includes = [], 0, 0
    src = root / "src"
    for file in sorted(src.rglob("*")):
        if file.suffix not in SOURCES:
            continue
        files += 1
        name = file.relative_to(src).as_posix()
        layer = layer_of(name, layers)
        if layer is None:
            offences.append(f"src/{name}:1: lies in no folder of tools/layers.toml; add the folder there")
            continue
        allowed = layers[layer].union(exceptions.get(name, []))
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            includes += 1
            kind, target = match.groups()
            where = f"src/{name}:{number}"
            if kind == "<":
                for prefix, folders in vendors.items():
                    if target.startswith(prefix) and layer not in folders:
                        offences.append(f"{where}: <{target}> may appear in {', '.join(folders)} only")
            elif target.startswith(".") or not (src / target).is_file():
                offences.append(f'{where}: "{target}" is no file under src/; write includes relative to src/')
            elif layer_of(target, layers) not in allowed:
                offences.append(f'{where}: {layer} may not include "{target}"; it may include '
                                f"{', '.join(sorted(allowed))}")
    return offences, files, includes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
    offences, files, includes = check(parser.parse_args().root)
    for offence in offences:
        print(offence)
    print(f"check_layers: {files} files, {includes} includes, {len(offences)} offences")
    return 1 if offences or not files else 0


if __name__ == "__main__":
    sys.exit(main())
