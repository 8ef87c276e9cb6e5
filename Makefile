# The front door. `make` builds, `make train` trains the lecture's net, `make test` proves the build; `make help` lists the rest.
# Targets that build first install the Debian packages they need; what is already done is skipped.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
RESNET := build/release/resnet
# Warnings are errors in CI only, so that a newer compiler's new warning does not stop a user's build.
WERROR := $(if $(CI),ON,OFF)

# What `make train` trains: the lecture's net on all 60,000 images, in about four minutes on two cores. Smaller inputs (32x32)
# and a faster recipe (two epochs, momentum, cosine) than the lecture's own: `resnet train` without flags, more than an hour.
RUN ?= runs/lecture
TRAIN_ARGS ?= --image-size 32 --epochs 2 --batch-size 128 --lr 0.05 --momentum 0.9 --weight-decay 5e-4 --lr-scheduler cosineannealinglr

.PHONY: all packages build train test test-kernels asan tsan test-avx512 test-avx512-code coverage fuzz format format-check tidy \
        layers install bench-training bench-inference bench-cold-start bench-accuracy clean help
.DEFAULT_GOAL := all

all: build ## install missing packages and build build/release/resnet

packages:
	@tools/install_packages.sh build

build: packages
	@[ -f build/release/build.ninja ] || cmake --preset release -DRESNET_WERROR=$(WERROR)
	@cmake --build build/release --target resnet -j $(JOBS)

train: build ## train the lecture's net, then evaluate the best model (RUN=, TRAIN_ARGS=)
	@if [ -f $(RUN)/.done ]; then \
	  echo "make train: $(RUN) is trained already; remove it to train again" >&2; \
	else \
	  $(RESNET) train $(TRAIN_ARGS) --output $(RUN) $$([ -e $(RUN)/config.toml ] && echo --resume) && touch $(RUN)/.done; \
	fi
	@$(RESNET) evaluate $(RUN)/best.safetensors --data fashion-mnist
	@echo "learning curve: $$(ls $(RUN)/plots/*.svg | tr '\n' ' ')" >&2

test: ## build everything and run every test, the layer and format checks among them
	@tools/install_packages.sh build test
	@tools/install_oracles.sh build/oracles
	@cmake --preset release -DRESNET_WERROR=$(WERROR) -DRESNET_BUILD_TESTS=ON -DRESNET_BUILD_BENCH=ON
	@cmake --build build/release -j $(JOBS)
	@ctest --test-dir build/release --output-on-failure -j $(JOBS)

test-kernels: ## the test suite with each family of kernels switched off by name, and with older instruction sets (over an hour)
	@tools/install_packages.sh build test
	@tools/install_oracles.sh build/oracles
	@cmake --preset release -DRESNET_WERROR=$(WERROR) -DRESNET_BUILD_TESTS=ON -DRESNET_BUILD_BENCH=ON
	@cmake --build build/release -j $(JOBS)
	@tools/test_kernels.sh build/release $(JOBS)

# The oracles run PyTorch beside the program; under a sanitizer they would only be slow.
asan: ## the test suite under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/install_packages.sh build test
	@cmake --preset asan
	@cmake --build build/asan -j $(JOBS)
	@ctest --preset asan -j $(JOBS)

# GCC's OpenMP runtime is not built for ThreadSanitizer, which would call its every barrier a race: kernels run on one thread.
tsan: ## the test suite under ThreadSanitizer: loader and trainer threads (OpenMP's are held to one)
	@tools/install_packages.sh build test
	@cmake --preset tsan
	@cmake --build build/tsan -j $(JOBS)
	@ctest --preset tsan -j $(JOBS)

# Users have AVX-512; CI and many a developer have not (docs/decisions/0021-avx512-without-the-processor.md).
test-avx512: ## the test suite with the AVX-512 kernels' sources, made of AVX2 instructions
	@tools/install_packages.sh build test
	@cmake --preset emulated
	@cmake --build build/emulated -j $(JOBS)
	@ctest --preset emulated -j $(JOBS)

# A hundred to two hundred times slower than a processor, so not the long ones; a quarter of an hour.
AVX512_CODE_TESTS ?= CpuConvolution.Constant*:CpuConvolution.AWeight*:CpuConvolution.ForcedWinogradSays*:CpuConvolution.Programs*:CpuConvolution.Packed*:CpuConvolution.ASumIs*:CpuConvolution.AStemKeeps*:QuantizedOps.*:Winograd.EveryPass*:Winograd.SmallIntegers*:Winograd.ANotA*:HalfArithmetic.EveryHalf*:*SimdTest*avx512_block16:-QuantizedOps.And*:*BatchNorm*:*LargeOutputs*:*Scaled*:*Blur*:*SoftmaxCrossEntropyAndIts*:*GlobalAvg*
test-avx512-code: ## the AVX-512 kernels' machine code, with oneDNN's, on an emulated Sapphire Rapids
	@tools/install_packages.sh build test
	@cmake --preset release -DRESNET_WERROR=$(WERROR) -DRESNET_BUILD_TESTS=ON
	@cmake --build build/release --target test_backends -j $(JOBS)
	@tools/emulator/run.sh build/release/tests/test_backends --gtest_filter='$(AVX512_CODE_TESTS)'

coverage: ## line and branch coverage, of the whole and of the readers
	@tools/install_packages.sh build test
	@cmake --preset coverage
	@cmake --build build/coverage -j $(JOBS)
	@find build/coverage -name '*.gcda' -delete
	@ctest --preset coverage -j $(JOBS)
	@tools/coverage.sh build/coverage

FUZZ_SECONDS ?= 60
fuzz: ## every fuzzer for FUZZ_SECONDS (60) each
	@tools/install_packages.sh build test
	@cmake --preset fuzz
	@cmake --build build/fuzz -j $(JOBS)
	@tools/run_fuzzers.sh build/fuzz $(FUZZ_SECONDS)

format: ## rewrite every C++ file as .clang-format has it
	@tools/check_format.sh --fix

format-check:
	@tools/check_format.sh

layers: ## check who includes whom (tools/layers.toml)
	@tools/check_layers.py

tidy: ## clang-tidy over src/
	@tools/install_packages.sh build test
	@cmake --preset tidy
	@run-clang-tidy -quiet -p build/tidy -j $(JOBS) "^$(CURDIR)/src/"

install: build ## install program, library and headers under PREFIX (/usr/local; DESTDIR is honoured)
	@cmake --build build/release --target resnet_library -j $(JOBS)
	@cmake --install build/release --prefix $(PREFIX)

bench-training: build ## training speed and memory against PyTorch, paired and interleaved
	@tools/install_packages.sh build test
	@/usr/bin/python3 bench/peers.py training

bench-inference: build ## inference speed, memory and start against PyTorch, ONNX Runtime, OpenVINO and ncnn; f32, int8, f16
	@tools/install_packages.sh build test
	@/usr/bin/python3 bench/peers.py inference
	@/usr/bin/python3 bench/plot.py

bench-cold-start: build ## time from a process's start to its first answer, beside PyTorch
	@tools/install_packages.sh build test
	@cmake --build build/release --target resnet_library -j $(JOBS)
	@/usr/bin/python3 bench/cold_start.py

bench-accuracy: train ## the trained lecture net beside PyTorch on all 10,000 test images: every kernel family, f16 and int8
	@tools/install_packages.sh build test
	@/usr/bin/python3 bench/accuracy.py --model $(RUN)/best.safetensors

clean: ## remove build/ (trained runs stay)
	@rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
