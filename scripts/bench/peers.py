"""The forwarders that are measured, and how each is told to do the same: ask one resolver by TLS, and believe it only if
its certificate bears the right name and is vouched for by the right authority.

What is not about that is left as the program has it by default; threads or processes are as many as there are cores where
the program does not see to that itself.
"""

import re
import shutil
import subprocess

from measure import CORES, Failure

# Where daemons are, which not everybody has in the path.
DAEMONS = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"


class Peer:
    """A forwarder."""

    name = ""
    program = ""
    package = ""
    # What is said of its configuration.
    note = ""
    has_cache = True
    environment = None

    def path(self):
        return shutil.which(self.program, path=DAEMONS)

    def version(self, programs):
        """Its version in words."""
        del programs
        asked = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${Version}", self.package],
            capture_output=True,
            text=True,
            check=False,
        )
        return f"{self.package} {asked.stdout}" if asked.returncode == 0 else self.said_version()

    def said_version(self):
        said = subprocess.run([self.path(), "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
        return f"{self.package} {found.group() if found else 'of unknown version'}"

    def need(self):
        if not self.path():
            raise Failure(f"{self.program} is missing: install the Debian package {self.package}, or name --peers")

    def commands(self, folder, port, upstream, programs, cached=False):
        """The commands that start it, which write their files into the folder."""
        raise NotImplementedError


class DnsTool(Peer):
    name = "dns-tool"
    note = "as it is by default, with padding; `--cache-size 0` where nothing is cached"

    def need(self):
        pass

    def version(self, programs):
        return subprocess.run([programs["dns-tool"], "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def commands(self, folder, port, upstream, programs, cached=False, options=()):
        command = [programs["dns-tool"], "--address", "127.0.0.1", "--port", port]
        command += ["--resolver-addr", f"127.0.0.1:{upstream.port}", "--resolver-fqdn", upstream.name]
        command += ["--resolver-ca", upstream.authority]
        return [command + ([] if cached else ["--cache-size", 0]) + list(options)]


class Unbound(Peer):
    name = "unbound"
    program = "unbound"
    package = "unbound"
    note = f"`num-threads: {CORES}`, `module-config: iterator`; no memory for its caches where nothing is cached"

    def commands(self, folder, port, upstream, programs, cached=False):
        del programs
        sizes = "" if cached else "msg-cache-size: 0\n    rrset-cache-size: 0\n    neg-cache-size: 0"
        configuration = folder / "unbound.conf"
        configuration.write_text(
            f"""
server:
    directory: "{folder}"
    pidfile: ""
    username: ""
    chroot: ""
    use-syslog: no
    num-threads: {CORES}
    interface: 127.0.0.1@{port}
    do-not-query-localhost: no
    module-config: "iterator"
    tls-cert-bundle: "{upstream.authority}"
    {sizes}
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{upstream.port}#{upstream.name}
    forward-tls-upstream: yes
remote-control:
    control-enable: no
"""
        )
        # A copy, because distributions confine the installed one by its path (AppArmor) to files of its own.
        program = folder / "unbound"
        if not program.exists():
            shutil.copy(self.path(), program)
        return [[program, "-d", "-c", configuration]]


ALL = [DnsTool(), Unbound()]
BY_NAME = {peer.name: peer for peer in ALL}
