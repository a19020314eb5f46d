"""Metadata of the package; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "segkd/__init__.py").read_text("utf-8"), re.MULTILINE)[1]

setup(
    name="segkd",
    version=VERSION,
    description="Data-free knowledge distillation of semantic segmentation networks",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="segkd authors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["knowledge distillation", "data-free", "semantic segmentation", "PyTorch"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.10",
        "torchvision>=0.25",
        "segmentation-models-pytorch>=0.5",
        "timm>=1.0.16",  # older ones unpickle what a checkpoint_path names
        "kornia>=0.8",
        "albumentations==2.0.8",  # the last of its line under the MIT licence
        "opencv-python-headless>=4.9",
        "pillow>=10.3",
        "numpy>=1.26",
        "click>=8.2",
        "pydantic>=2.7",
        "ruamel.yaml>=0.19",
        "filelock>=4.3.1",
        "tqdm>=4.66",
        "matplotlib>=3.8",  # curves
        "jinja2>=3.1",
        "packaging>=22",
        "safetensors>=0.4.3",
        "huggingface_hub>=0.24",
        "h5py>=3.10",  # with scipy, for NYUv2's official files
        "scipy>=1.11",
    ],
    extras_require={
        "export": ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18"],
        "hf": ["transformers>=5"],
        "tb": ["tensorboard>=2.17"],
        "test": [
            "pytest>=8.2",
            "pytest-xdist>=3.6.1",
            "hypothesis>=6.100",
            "transformers>=5",
            "onnx>=1.16",
            "onnxscript>=0.1",
            "onnxruntime>=1.18",
            "tensorboard>=2.17",
            "ruff==0.17.*",
        ],  # another ruff would format differently
    },
    entry_points={"console_scripts": ["segkd=segkd.cli.main:main"]},
    packages=[*find_packages(include=["segkd", "segkd.*"]), "segkd.recipes"],
    package_dir={"segkd.recipes": "recipes"},
    package_data={
        "segkd": ["py.typed", "reporting/*.html", "delivery/*.txt"],
        "segkd.recipes": [
            "*.yaml",
            "base/*.yaml",
            "panel/*.yaml",
            "panel/*.py",
            "published/*.yaml",
            "teachers/*.yaml",
            "teachers/*.safetensors",
            "teachers/*.md",
        ],
    },
    include_package_data=False,
    zip_safe=False,
)
