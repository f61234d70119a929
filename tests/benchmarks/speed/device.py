"""A process that says what it computes on, so that the benchmark itself need not import torch."""

import json

if __name__ == "__main__":
    import torch

    print(json.dumps({"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}))
