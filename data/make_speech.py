"""Makes data/speech: spoken English digits, from the speech synthesiser espeak-ng.

    python data/make_speech.py [FOLDER]

It needs espeak-ng (1.51 made the bundled files) and SciPy. A voice says each digit once, in its own accent,
at a speed, a pitch and an intonation drawn anew. The same seed gives the same samples; another version of
espeak-ng may speak differently.
"""

import io
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

SEED = 10
RATE = 8000  # samples a second
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ACCENTS = ["en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-029"]
VOICES = (  # espeak-ng's variants, women's and then men's, none of them a whisper, a robot or another's twin
    "Alicia Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 grandma linda steph "
    "Alex Andy antonio boris caleb david ed Gene Hugo iven Lee m1 m2 m3 m4 m5 m6 m7 "
    "Marco Michael paul quincy robert zac"
)
TESTED = 10  # voices of the test part, drawn at random


def speak(text: str, voice: str, speed: int, pitch: int) -> NDArray[np.float64]:
    """Samples of what espeak-ng says, (N,) at `RATE`; `speed` in words a minute, `pitch` 0 to 99."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    spoken = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return resample_poly(samples.astype(np.float64), RATE, rate)


def trimmed(samples: NDArray[np.float64], frame: int = RATE // 100) -> NDArray[np.float64]:
    """Without the silence at both ends: frames of 10 ms more than 40 dB below the loudest."""
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    power = np.square(frames).mean(axis=1)
    loud = np.flatnonzero(power > 1e-4 * power.max())
    return samples[loud[0] * frame : (loud[-1] + 1) * frame]


def make(folder: Path) -> None:
    """Writes `train/` and `test/` into `folder`, each file named DIGIT_VOICE_NUMBER.wav."""
    rng = np.random.default_rng(SEED)
    voices = rng.permutation(VOICES.split())
    for place, voice in enumerate(voices):
        part = folder / ("test" if place < TESTED else "train")
        part.mkdir(parents=True, exist_ok=True)
        accent = rng.choice(ACCENTS)
        for digit, word in enumerate(WORDS):
            text = word + rng.choice([".", ",", "?", "!"])
            speed, pitch = int(rng.integers(150, 230)), int(rng.integers(25, 75))
            samples = trimmed(speak(text, f"{accent}+{voice}", speed, pitch))
            samples *= rng.uniform(0.5, 0.9) * 2**15 / np.abs(samples).max()
            with wave.open(str(part / f"{digit}_{voice.lower()}_0.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(np.round(samples).astype("<i2").tobytes())


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "speech")
