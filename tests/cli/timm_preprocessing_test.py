#!/usr/bin/python3
"""timm's own evaluation transforms make the goldens that `resnet verify` is held against: crop_pct, its filters, its squash."""
import hashlib
import json

import numpy as np
import program
import torch
from PIL import Image
from preprocessing_test import MEAN, STD, network, save_model, write_files
from program import ProgramTest
from timm.data import create_transform


class Timm(ProgramTest):
    def test_its_evaluation_transform_is_ours(self):
        files = write_files(self.folder / "photos")
        net = network(3, 5, 3)
        for side, share, interpolation, mode in ((32, 0.875, "bicubic", "center"), (32, 0.95, "bilinear", "center"), (31, 1.0, "lanczos", "center"),
                                                 (32, 0.9, "bicubic", "squash")):
            transform = create_transform(side, is_training=False, interpolation=interpolation, crop_pct=share, crop_mode=mode, mean=MEAN, std=STD)
            *geometry, to_tensor, normalise = transform.transforms
            images, batch = [], []
            for path in files:
                image = Image.open(path).convert("RGB")
                batch.append(transform(image))
                for step in geometry:
                    image = step(image)
                pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
                self.assertEqual(pixels.shape, (3, side, side))
                images.append({"file": f"photos/{path.name}", "sha256": program.sha256(path),
                               "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest()})
            with torch.no_grad():
                for image, row in zip(images, net(torch.stack(batch)).numpy()):
                    image["logits"] = [float(v) for v in row]
            (self.folder / "golden.json").write_text(json.dumps({"format": "resnet golden 1", "images": images}))
            save_model(self.folder / "m.safetensors", net, 3, 5, side, mean=json.dumps(MEAN), std=json.dumps(STD), crop_pct=str(share),
                       interpolation=interpolation, resize="shortest" if mode == "center" else "squash")
            result = self.call("verify", "m.safetensors", "--against", "golden.json")
            self.assertEqual(result.code, 0, f"{side} {share} {interpolation} {mode}\n{result.out}{result.err}")


if __name__ == "__main__":
    program.main()
