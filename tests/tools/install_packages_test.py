#!/usr/bin/python3
"""tools/install_packages.sh with stand-ins for dpkg-query, apt-get, sudo and id on PATH: nothing is installed.

And the list it reads: what `make` and `make train` run, group `build` must bring.
"""
import json
import os
import pathlib
import re
import shlex
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "install_packages.sh"
TOOLS = ("bash", "dirname", "awk", "sort", "tr", "env")


class InstallPackages(unittest.TestCase):
    def run_with(self, groups, absent=(), root=True, sudo=True, apt_code=0):
        """Runs the script where `absent` packages are not installed; .calls holds every apt-get call with its prefix."""
        with tempfile.TemporaryDirectory() as folder:
            root_dir = pathlib.Path(folder)
            log = root_dir / "calls"
            log.touch()

            def stand_in(name, body):
                (root_dir / name).write_text(f"#!/bin/bash\n{body}\n")
                (root_dir / name).chmod(0o755)

            for tool in TOOLS:
                (root_dir / tool).symlink_to(f"/usr/bin/{tool}")
            stand_in("dpkg-query", f'for p in {" ".join(absent)}; do [ "${{@: -1}}" = "$p" ] && exit 1; done; echo installed')
            stand_in("apt-get", f'echo "apt-get $* ${{DEBIAN_FRONTEND:-}}" >> {log}; exit {apt_code}')
            stand_in("id", f"echo {0 if root else 1000}")
            if sudo:
                stand_in("sudo", f'echo sudo >> {log}; exec "$@"')
            done = subprocess.run([SCRIPT, *groups], text=True, capture_output=True,
                                  env={**os.environ, "PATH": folder})
            done.calls = log.read_text().splitlines()
            return done

    def test_with_everything_installed_apt_is_never_called(self):
        done = self.run_with(["build", "test"])
        self.assertEqual((done.returncode, done.calls, done.stderr), (0, [], ""))

    def test_only_what_is_missing_is_installed(self):
        done = self.run_with(["build"], absent=["libdnnl-dev", "cmake", "python3-torch"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(done.calls), 2)
        self.assertEqual(done.calls[0].split()[:2], ["apt-get", "update"])
        self.assertIn("--no-install-recommends cmake libdnnl-dev noninteractive", done.calls[1])

    def test_a_user_goes_through_sudo(self):
        done = self.run_with(["build"], absent=["cmake"], root=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.calls.count("sudo"), 2)

    def test_without_root_and_sudo_the_command_to_run_is_named(self):
        done = self.run_with(["build"], absent=["cmake"], root=False, sudo=False)
        self.assertEqual((done.returncode, done.calls), (4, []))
        self.assertIn("run as root: apt-get install --no-install-recommends cmake", done.stderr)

    def test_a_failing_apt_ends_in_one_clear_error(self):
        done = self.run_with(["build"], absent=["cmake"], apt_code=100)
        self.assertEqual(done.returncode, 4)
        self.assertIn("error: apt-get could not install: cmake", done.stderr)

    def test_an_unknown_group_is_a_usage_error(self):
        self.assertEqual(self.run_with(["tests"]).returncode, 2)

    def test_every_package_has_a_known_group_and_a_reason(self):
        for line in SCRIPT.with_name("packages.txt").read_text().splitlines():
            if line and not line.startswith("#"):
                self.assertRegex(line, r"^(build|test) +[a-z0-9.+-]+ +# \S")


def packages(*groups):
    lines = (line.split() for line in SCRIPT.with_name("packages.txt").read_text().splitlines())
    return [words[1] for words in lines if words and words[0] in groups]


def programs_of_preset(name, presets=None):
    """What `cmake --preset NAME` runs beside cmake itself: the generator, and every compiler and launcher it is told."""
    presets = presets or {p["name"]: p for p in json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]}
    preset, programs = presets[name], {}
    parents = preset.get("inherits", [])
    for parent in [parents] if isinstance(parents, str) else reversed(parents):
        programs.update(programs_of_preset(parent, presets))
    if "generator" in preset:
        programs["generator"] = {"Ninja": "ninja", "Unix Makefiles": "make"}[preset["generator"]]
    for variable, value in {**preset.get("cacheVariables", {}), **preset.get("environment", {})}.items():
        if re.search(r"_(COMPILER|LAUNCHER|MAKE_PROGRAM|LINKER)$|^(CC|CXX|LD)$", variable):
            programs[variable] = value["value"] if isinstance(value, dict) else value
    return programs


def commands_of_target(target, makefile):
    """The programs that the recipes of `target`, and of all it depends on, call by name."""
    rule = re.search(rf"^{target}:([^=#\n]*)(?:#.*)?\n((?:\t.*\n)*)", makefile, re.MULTILINE)
    commands = set().union(*(commands_of_target(other, makefile) for other in rule[1].split()))
    for line in rule[2].replace("\\\n", " ").splitlines():
        commands |= commands_of_line(re.sub(r"\$\((\w+)\)", r"${\1}", line.strip().lstrip("@-")))
    return commands


def commands_of_line(line):
    """The first word of every command in a line of shell, past the shell's own words."""
    inner = re.findall(r"\$\$\(([^()]*)\)", line)
    commands = set().union(*map(commands_of_line, inner))
    line = re.sub(r"\$\$\([^()]*\)|\d?>&?\s*\S+", " ", line)
    words = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    words.whitespace_split = True
    first = True
    for word in words:
        if not set(word) - set(";|&"):
            first = True
        elif first and not re.fullmatch(r"if|then|else|fi|!|\w+=.*", word):
            commands.add(word)
            first = False
    return commands - {"[", "echo"}


class BuildGroup(unittest.TestCase):
    """`make` on a machine with nothing but Debian's base system, git and make."""

    def assert_brought(self, program, why):
        """Some package of group `build` ships `program`; a program of Debian's base system needs none."""
        shipped = subprocess.run(["dpkg-query", "--search", f"*/bin/{program}"], text=True, capture_output=True).stdout
        owners = {owner.split(":")[0] for line in shipped.splitlines() if line.split(": ")[-1].endswith(f"/bin/{program}")
                  for owner in line.split(": ")[0].split(", ")}
        essential = {owner for owner in owners if subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Essential}", owner], text=True, capture_output=True).stdout == "yes"}
        self.assertTrue(essential or owners & set(packages("build")),
                        f"{why} runs '{program}', which {', '.join(sorted(owners)) or 'no installed package'} ships; "
                        "a package of group `build` in tools/packages.txt must")

    def test_every_program_of_the_release_preset_comes_from_the_build_group(self):
        programs = programs_of_preset("release")
        self.assertIn("generator", programs)
        for variable, program in programs.items():
            self.assert_brought(program, f"CMakePresets.json: preset release, {variable},")

    def test_every_program_that_make_and_make_train_call_comes_from_the_build_group(self):
        makefile = (ROOT / "Makefile").read_text()
        commands = commands_of_target("all", makefile) | commands_of_target("train", makefile)
        self.assertLessEqual({"cmake", "tools/install_packages.sh", "${RESNET}"}, commands)
        for command in commands - {"${RESNET}", "tools/install_packages.sh"}:
            self.assert_brought(command, "Makefile:")

    def test_a_program_of_another_group_would_be_noticed(self):
        with self.assertRaisesRegex(AssertionError, "ccache"):
            self.assert_brought("ccache", "a preset")
        with self.assertRaises(AssertionError):
            self.assert_brought("no-such-program", "a preset")
        launcher = {"a": {"inherits": "b"}, "b": {"cacheVariables": {"CMAKE_CXX_COMPILER_LAUNCHER": "ccache"}}}
        self.assertEqual(programs_of_preset("a", launcher), {"CMAKE_CXX_COMPILER_LAUNCHER": "ccache"})
        self.assertIn("ccache", commands_of_target("all", "all: build ## x\n\nbuild:\n\t@[ -f x ] || ccache g++ x\n"))


if __name__ == "__main__":
    unittest.main()
