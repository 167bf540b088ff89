# A bigram model of bytes that really learns, in plain Python: a few steps of softmax regression.
import math
import random
import time

SEED = 1337
RATE = 1e-1            # learning rate
BATCH = 2**3           # bytes a step looks at
MOMENTUM = .5
INIT_SCALE = 5e-1
MAX_SECONDS = 2
SCHEDULE = 'flat'

random.seed(SEED)
ALPHABET = sorted(set(open(__file__, encoding="utf-8").read()))
TEXT = open(__file__, encoding="utf-8").read()
split = len(TEXT) * 9 // 10
index = {c: i for i, c in enumerate(ALPHABET)}
size = len(ALPHABET)
weights = [[random.uniform(-INIT_SCALE, INIT_SCALE) for _ in range(size)] for _ in range(size)]
speed = {}


def probabilities(row):
    top = max(row)
    e = [math.exp(x - top) for x in row]
    total = sum(e)
    return [x / total for x in e]


start = time.process_time()
for step in range(150):
    scale = 1 - step / 150 if SCHEDULE == 'linear' else 1.0
    for _ in range(BATCH):
        i = random.randrange(split - 1)
        a, b = index[TEXT[i]], index[TEXT[i + 1]]
        p = probabilities(weights[a])
        p[b] -= 1
        last = speed.get(a, [0.0] * size)
        speed[a] = [MOMENTUM * v + g for v, g in zip(last, p)]
        weights[a] = [w - RATE * scale * v for w, v in zip(weights[a], speed[a])]
    if time.process_time() - start > MAX_SECONDS:
        break

nats = 0.0
for i in range(split, len(TEXT) - 1):
    nats -= math.log(max(probabilities(weights[index[TEXT[i]]])[index[TEXT[i + 1]]], 1e-9))
print('---')
print('val_bpb: %.5f' % (nats / (len(TEXT) - 1 - split) / math.log(2)))
print('num_steps: %d' % (step + 1))
