-- 64 KiB by POST, for wrk.
wrk.method = "POST"
wrk.body = string.rep("portico ", 8192)
wrk.headers["content-type"] = "application/octet-stream"
