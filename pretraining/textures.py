"""Textures for the pretraining images: noise spectra, gratings, cells, fractals and strokes."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

TILE = 128  # side of a texture in pixels


def _normalised(field: np.ndarray) -> np.ndarray:
    """Map the 2nd to 98th percentile to 0..255, uint8."""
    low, high = np.percentile(field, (2, 98))
    return (np.clip((field - low) / (high - low + 1e-9), 0, 1) * 255).astype(np.uint8)


def texture(seed: int, variant: int) -> np.ndarray:
    """One tile, (128, 128) uint8.

    Args:
        seed: of the class; it fixes the tile's family and statistics.
        variant: changes the noise.
    """
    base, noise = np.random.default_rng(seed), np.random.default_rng((seed, variant))
    family = int(base.integers(6))
    grid = np.fft.fftfreq(TILE)
    fx, fy = np.meshgrid(grid, grid)
    y, x = np.mgrid[0:TILE, 0:TILE] / TILE
    warp = base.random() * 0.06
    bend = [np.fft.ifft2(np.fft.fft2(noise.normal(size=(TILE, TILE))) * np.exp(-(fx**2 + fy**2) * 8000)).real
            for _ in range(2)]  # fmt: skip
    x, y = (p + warp * b / (np.abs(b).max() + 1e-9) for p, b in zip((x, y), bend, strict=True))
    if family == 0:  # power-law noise, stretched
        stretch, power = np.exp(base.normal() * 0.7), base.uniform(0.6, 2.6)
        spectrum = np.hypot(fx * stretch, fy / stretch) + 1 / TILE
        return _normalised(np.fft.ifft2(np.fft.fft2(noise.normal(size=(TILE, TILE))) / spectrum**power).real)
    if family == 1:  # band-passed noise, hard or soft edges
        centre, width = base.uniform(0.03, 0.25), base.uniform(0.01, 0.05)
        stretch = np.exp(base.normal() * 0.5)
        band = np.exp(-((np.hypot(fx * stretch, fy / stretch) - centre) ** 2) / (2 * width**2))
        field = np.fft.ifft2(np.fft.fft2(noise.normal(size=(TILE, TILE))) * band).real
        return _normalised(np.tanh(field / field.std() * base.choice([0.5, 4.0])))
    if family == 2:  # gratings
        field = np.zeros((TILE, TILE))
        for _ in range(int(base.integers(1, 4))):
            angle, frequency = base.random() * np.pi, base.uniform(3, 24)
            field += np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y) + noise.random() * 6.28)
        return _normalised(np.tanh(field * base.choice([0.6, 5.0])))
    if family == 3:  # cells: distance to the nearest of scattered points, or by how much the second nearest is farther
        points = noise.random((int(base.integers(12, 160)), 2))
        delta = np.stack([x.ravel(), y.ravel()], 1)[:, None] - points[None]
        near = np.sort((delta**2).sum(-1), axis=1)[:, :2] ** 0.5
        field = near[:, 0] if base.random() < 0.5 else near[:, 1] - near[:, 0]
        return _normalised(field.reshape(TILE, TILE) ** base.uniform(0.4, 1.2))
    if family == 4:  # iterated function system, points splatted into a density (Kataoka et al. 2020)
        maps = base.uniform(-1, 1, size=(int(base.integers(2, 5)), 2, 3))
        maps[:, :, :2] *= 0.85 / np.maximum(np.linalg.norm(maps[:, :, :2], ord=2, axis=(1, 2))[:, None, None], 0.85)
        point = noise.normal(size=(400, 2))
        density = np.zeros((TILE, TILE))
        for step in range(80):
            pick = maps[noise.integers(len(maps), size=400)]
            point = np.einsum("nij,nj->ni", pick[:, :, :2], point) + pick[:, :, 2]
            if step > 10:
                spot = ((point * 0.22 + 0.5) % 1.0 * TILE).astype(int)
                np.add.at(density, (spot[:, 1], spot[:, 0]), 1)
        blur = np.exp(-(fx**2 + fy**2) * 30)
        return _normalised(np.log1p(np.fft.ifft2(np.fft.fft2(density) * blur).real.clip(0)))
    # family 5: tiling of strokes
    canvas = Image.new("L", (TILE, TILE), 30)
    pen = ImageDraw.Draw(canvas)
    length, spread, width = base.uniform(4, 24), base.random(), int(base.integers(1, 5))
    for _ in range(int(base.integers(60, 260))):
        cx, cy = noise.random(2) * TILE
        angle = noise.normal() * spread * 1.6
        dx, dy = length * np.cos(angle) / 2, length * np.sin(angle) / 2
        pen.line((cx - dx, cy - dy, cx + dx, cy + dy), fill=int(noise.integers(80, 256)), width=width)
    return np.asarray(canvas)
