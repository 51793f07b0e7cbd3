"""Archives, and a server of files that can break off."""

import contextlib
import functools
import http.server
import io
import tarfile
import threading


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, parts of them too.

    ``/short/NAME`` breaks off after 100,000 bytes, ``/whole/NAME`` knows no parts; ``asked`` lists
    what was asked for: (path, Range or None).
    """

    def __init__(self, asked, *args, **kwargs):
        self.asked = asked
        super().__init__(*args, **kwargs)

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append((self.path, self.headers["Range"]))
        kind, _, name = self.path.strip("/").rpartition("/")
        self.path = f"/{name}"
        try:
            content = open(self.translate_path(self.path), "rb").read()
        except OSError:
            self.send_error(404)
            return
        first = 0
        if self.headers["Range"] and kind != "whole":
            first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if first >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first : first + 100_000] if kind == "short" else content[first:])


@contextlib.contextmanager
def serve(folder):
    """Serve a folder over HTTP; yields (address, what was asked for)."""
    folder.mkdir(exist_ok=True)
    asked = []
    handler = functools.partial(Handler, asked, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}", asked
        finally:
            httpd.shutdown()
            thread.join()


def make_tar(path, members, top="an4-1234"):
    """Write a tar.gz; members: name -> bytes, or a prepared TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(f"{top}/{name}" if top else name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, str(target)
    return info
