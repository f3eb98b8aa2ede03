"""A stand-in for package indexes: tiny wheels, a server that notes what is asked, and a proxy for all other hosts."""

import base64
import contextlib
import hashlib
import socket
import ssl
import subprocess
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


def write_wheel(folder, name, version, *, requires=(), program=None, platform="any"):
    """Write a wheel with one module, and the program as a script of the same name, into an index's folder."""
    files = {f"{name}.py": f"version = {version!r}\n".encode()}
    if program:
        files[f"{name}-{version}.data/scripts/{name}"] = Path(program).read_bytes()
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-{platform}\n".encode()
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},{len(content)}\n"
        for path, content in files.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-{platform}.whl", "w") as wheel:
        for path, content in (files | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}).items():
            wheel.writestr(path, content)


class IndexHandler(BaseHTTPRequestHandler):
    """Answers for the wheels under `server.root`: FOLDER/NAME/ is a page of links (PEP 503), below it are the files."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if self.server.login and self.headers["Authorization"] != f"Basic {encoded(self.server.login)}":
            self.send_error(401)
            return
        self.server.asked.append(path)
        folder, name, file = path[1:].rsplit("/", 2)
        wheels = sorted((self.server.root / folder).glob(f"{name.replace('-', '_')}-*.whl"))
        if file:
            body = b"".join(wheel.read_bytes() for wheel in wheels if wheel.name == file)
        else:
            digests = {wheel: self.server.digests.get(wheel.name) or sha256(wheel) for wheel in wheels}
            body = "".join(f'<a href="{w.name}#sha256={digests[w]}">{w.name}</a>\n' for w in wheels).encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "application/octet-stream" if file else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


class ProxyHandler(IndexHandler):
    """Refuses every host but those of `server.certificate`, for which it answers itself."""

    def do_CONNECT(self):
        host = self.path.partition(":")[0]
        self.server.hosts.append(host)
        if not self.server.certificate:
            self.send_error(403)
            return
        self.send_response(200)
        self.end_headers()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server.certificate)
        with contextlib.suppress(OSError), context.wrap_socket(self.connection, server_side=True) as connection:
            IndexHandler(connection, self.client_address, self.server)


def encoded(login):
    return base64.b64encode(login.encode()).decode()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def serving(root, handler=IndexHandler, certificate=None):
    """Yield a server with its `address`, the paths that were `asked` and the `hosts` that a proxy was asked for.

    digests: hashes to state instead of the true ones, by file.
    login: user:password to ask for, if any.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.root, server.asked, server.hosts, server.digests, server.certificate = root, [], [], {}, certificate
    server.login = ""
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def make_certificate(path, host):
    """Write a certificate that a host signed itself, with its key."""
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    command = ["openssl", "req", "-x509", *options, *names, "-keyout", f"{path}.key", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())


@contextlib.contextmanager
def silent_server():
    """Yield the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
