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
        command = [programs["dns-tool"], "--version"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

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


class Stubby(Peer):
    name = "stubby"
    program = "stubby"
    package = "stubby"
    note = "one thread, padding to 128; it has no cache"
    has_cache = False

    def commands(self, folder, port, upstream, programs, cached=False):
        del programs, cached
        configuration = folder / "stubby.yml"
        configuration.write_text(
            f"""resolution_type: GETDNS_RESOLUTION_STUB
dns_transport_list:
  - GETDNS_TRANSPORT_TLS
tls_authentication: GETDNS_AUTHENTICATION_REQUIRED
tls_query_padding_blocksize: 128
edns_client_subnet_private: 1
idle_timeout: 10000
appdata_dir: "{folder}"
tls_ca_file: "{upstream.authority}"
listen_addresses:
  - 127.0.0.1@{port}
upstream_recursive_servers:
  - address_data: 127.0.0.1
    tls_port: {upstream.port}
    tls_auth_name: "{upstream.name}"
"""
        )
        return [[self.path(), "-C", configuration]]


class Dnsdist(Peer):
    name = "dnsdist"
    program = "dnsdist"
    package = "dnsdist"
    note = "as it is by default; a packet cache for 100,000 answers where they are cached"
    # What it is told of queries in flight: of a client's connection, and of one to the resolver.
    listening = ""
    asking = ""

    def commands(self, folder, port, upstream, programs, cached=False):
        del programs
        configuration = folder / "dnsdist.conf"
        cache = 'getPool(""):setCache(newPacketCache(100000))' if cached else ""
        configuration.write_text(
            f"""-- It would ask by cleartext whether its version is a safe one.
setSecurityPollSuffix("")
setLocal("127.0.0.1:{port}"{self.listening})
newServer({{
    address = "127.0.0.1:{upstream.port}", tls = "openssl", subjectName = "{upstream.name}",
    caStore = "{upstream.authority}", validateCertificates = true{self.asking}
}})
{cache}
"""
        )
        return [[self.path(), "--supervised", "--disable-syslog", "-C", configuration]]


class DnsdistInFlight(Dnsdist):
    name = "dnsdist-1000"
    note = "the same with `maxInFlight = 1000` for clients and the resolver"
    listening = ", { maxInFlight = 1000 }"
    asking = ", maxInFlight = 1000"


class KnotResolver(Peer):
    name = "knot-resolver"
    program = "kresd"
    package = "knot-resolver"
    note = f"{CORES} {'process' if CORES == 1 else 'processes'}, no trust anchors; `NO_CACHE` where nothing is cached"

    def commands(self, folder, port, upstream, programs, cached=False):
        del programs
        configuration = folder / "kresd.conf"
        cache = "" if cached else "policy.add(policy.all(policy.FLAGS({'NO_CACHE'})))"
        configuration.write_text(
            f"""net.ipv6 = false
net.listen('127.0.0.1', {port}, {{ kind = 'dns' }})
-- Nobody but the resolver is to be asked: neither for keys nor for the time nor for the root.
trust_anchors.remove('.')
for _, name in ipairs({{
    'priming', 'ta_update', 'ta_signal_query', 'ta_sentinel', 'detect_time_jump', 'detect_time_skew'
}}) do
    modules.unload(name)
end
cache.open(100 * MB, 'lmdb://{folder}/kresd-cache')
{cache}
policy.add(policy.all(policy.TLS_FORWARD({{
    {{ '127.0.0.1@{upstream.port}', hostname = '{upstream.name}', ca_file = '{upstream.authority}' }}
}})))
"""
        )
        return [[self.path(), "-n", "-c", configuration, folder]] * CORES


class Smartdns(Peer):
    name = "smartdns"
    program = "smartdns"
    package = "smartdns"
    note = "no speed checks, no prefetch, no choice between kinds of addresses, so that it asks for what it is asked alone"

    def commands(self, folder, port, upstream, programs, cached=False):
        del programs
        configuration = folder / "smartdns.conf"
        configuration.write_text(
            f"""bind 127.0.0.1:{port}
bind-tcp 127.0.0.1:{port}
cache-size {16384 if cached else 0}
cache-persist no
speed-check-mode none
dualstack-ip-selection no
prefetch-domain no
log-level warn
log-file {folder}/smartdns-own.log
ca-file {upstream.authority}
server-tls 127.0.0.1:{upstream.port} -host-name {upstream.name} -tls-host-verify {upstream.name}
"""
        )
        return [[self.path(), "-f", "-c", configuration, "-p", folder / "smartdns.pid"]]


class Bare(Peer):
    name = "bare"
    program = "bare"
    note = "a yardstick of the bench, which relays and does nothing else; in the cached rows it makes up all answers itself"

    def need(self):
        pass

    def version(self, programs):
        del programs
        return "bare"

    def commands(self, folder, port, upstream, programs, cached=False):
        command = [programs["bare"], "--listen", f"127.0.0.1:{port}"]
        relay = ["--resolver", f"127.0.0.1:{upstream.port}", "--name", upstream.name, "--authority", upstream.authority]
        return [command + ([] if cached else relay)]


ALL = [DnsTool(), Bare(), Unbound(), Stubby(), Dnsdist(), DnsdistInFlight(), KnotResolver(), Smartdns()]
BY_NAME = {peer.name: peer for peer in ALL}
