# The HTTP API without torch. First: python -m tools.export_onnx pretrained/flickr8k.pth
#   docker build -t captioning . && docker run --rm --read-only --cap-drop ALL --stop-timeout 120 -p 8000:8000 captioning
FROM python:3.12-slim

RUN useradd --no-create-home --uid 1000 user
WORKDIR /app

COPY requirements-onnx.txt requirements-serve.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements-serve.txt -c constraints.txt
COPY cli.py files.py structured.py config.py config_parser.py serve.py CITATION.cff ./
COPY data/__init__.py data/images.py data/pixels.py data/shards.py data/
COPY demo/__init__.py demo/uploads.py demo/
COPY evaluation/__init__.py evaluation/options.py evaluation/
COPY models/__init__.py models/hub.py models/pretrained.py models/
COPY deploy/ deploy/
COPY onnx_captioner/ onnx_captioner/

ENV PYTHONDONTWRITEBYTECODE=1
USER 1000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://localhost:8000/health', timeout=4)"]
CMD ["python", "serve.py", "--host", "0.0.0.0"]
