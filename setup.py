"""Packaging: everything is read from settings.ini, the one place where the project describes itself."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
parser = ConfigParser(delimiters=["="])
parser.read(HERE / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    keywords=settings["keywords"],
    license="Apache-2.0",
    packages=find_packages(include=["reid_nb", "reid_nb.*"]),
    include_package_data=True,
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={
        "dev": settings["dev_requirements"].split(),
        "slurm": ["snakemake-executor-plugin-slurm"],
        "kubernetes": ["snakemake-executor-plugin-kubernetes"],
        "tensorrt-rtx": ["tensorrt_rtx_cu13_libs==1.7.1.116", "tensorrt_rtx_cu13_bindings==1.7.1.116"],
    },
    entry_points={"console_scripts": settings["console_scripts"].split()},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Intended Audience :: Education",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
