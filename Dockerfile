# A server for a bundle:
#
#     docker build -t lenext .
#     docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/best.lenext:/model.lenext:ro" lenext
#
# With `-e LENEXT_API_KEY` it asks for a key; options of `lenext serve` follow the image's name, after /model.lenext.
# Built and run with Buildah 1.28, on Debian 12 with its Python in the place of the first line's image: no Docker was at
# hand.

FROM python:3.11-slim

# The address of PyTorch's index of builds for processors only makes the image a tenth of the size
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision \
    && useradd --create-home lenext
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
# With what exports need come the engines that are the fastest as a rule
RUN pip install --no-cache-dir "/src[serve,export]"

USER lenext
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=15s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Within the container every address is its own: what of it is published, -p says
ENTRYPOINT ["lenext", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/model.lenext"]
