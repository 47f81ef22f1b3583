"""TRY: a web page that captions your photos and shows attention maps.

pip install -r requirements-demo.txt
streamlit run app.py
"""

import asyncio
import contextlib
import sys
import webbrowser
from collections.abc import AsyncIterator
from importlib.util import find_spec

from cli import ROOT, missing_package, note

if find_spec("streamlit") is None:
    note(f"error: {missing_package(ModuleNotFoundError(name='streamlit'))}")
    sys.exit(2)
if __name__ == "__main__":  # Streamlit imports this file
    packages = "pip install -r requirements-demo.txt -c constraints.txt"
    note(f"error: app.py is a page that streamlit serves: streamlit run {sys.argv[0]} (after {packages})")
    sys.exit(2)

import streamlit as st
from starlette.middleware import Middleware
from streamlit import net_util

from demo.limits import UploadLimits

# Streamlit would look up this machine's address on the internet whenever a page of another site connects.
net_util.get_external_ip = net_util.get_internal_ip = lambda: None


@contextlib.asynccontextmanager
async def open_browser(_: st.App) -> AsyncIterator[None]:
    """Open the page in the browser once it is served, as Streamlit does for a plain script, but not on a server."""
    if not st.get_option("server.headless"):
        address = f"http://localhost:{st.get_option('server.port')}"
        asyncio.get_running_loop().call_later(1, webbrowser.open, address)
    yield


app = st.App(ROOT / "demo" / "page.py", middleware=[Middleware(UploadLimits)], lifespan=open_browser)
