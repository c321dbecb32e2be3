"""Files of a folder, served by the core, and one that a handler chooses. Needs nothing but portico.

python examples/files.py
"""

import os
import tempfile
from pathlib import Path

import portico

kept = tempfile.TemporaryDirectory(prefix="portico-files-")
folder = Path(kept.name)
(folder / "index.html").write_text("<p>home\n")
(folder / "numbers.txt").write_text("".join(f"{number}\n" for number in range(1000)))
(folder / "reports").mkdir()
(folder / "reports" / "march.csv").write_text("day,visits\n1,12\n")

router = portico.Router()
router.mount(
    "/static", portico.StaticFiles(folder, listing=True, cache_control={".css": "max-age=86400", "*": "no-cache"})
)


@router.get("/download")
def download(request):
    # Ranges, ETag and conditions are the core's work here too.
    headers = {"content-disposition": "attachment; filename=march.csv"}
    return {"statusCode": 200, "headers": headers, "body": folder / "reports" / "march.csv"}


if __name__ == "__main__":
    with portico.Server(router) as server:
        url = server.listen(0, tls=False).url
        print(f"Process {os.getpid()} serves {folder}. Try:")
        print(f"curl {url}/static/")
        print(f"curl --range 0-3 {url}/static/numbers.txt")
        print(f"curl {url}/static/reports/")
        print(f"curl {url}/download")
        print("Ctrl-C ends it.", flush=True)
        server.serve_forever()
    kept.cleanup()
