#!/usr/bin/python3
"""tools/install_packages.sh with stand-ins for dpkg-query, apt-get, sudo and id on PATH: nothing is installed."""
import os
import pathlib
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "install_packages.sh"
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
        done = self.run_with(["build", "test", "bench"])
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
                self.assertRegex(line, r"^(build|test|bench) +[a-z0-9.+-]+ +# \S")


if __name__ == "__main__":
    unittest.main()
