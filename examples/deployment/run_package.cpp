// Runs a package that `multifuse export MODEL --format aoti --output model.pt2` has written, without Python.
//
// It prints the names of inputs and outputs, then the first output for a batch of zeros without padding. Build and run,
// with the same torch that made the package:
//
//   TORCH=$(python -c "import torch; print(torch.__path__[0])")
//   g++ -std=c++20 examples/deployment/run_package.cpp -o run_package \
//       -I$TORCH/include -I$TORCH/include/torch/csrc/api/include -L$TORCH/lib -Wl,-rpath,$TORCH/lib \
//       -ltorch -ltorch_cpu -lc10
//   ./run_package model.pt2 long:2,7 float:2,11,5 bool:2,7 bool:2,11
//
// An argument gives the type and the sizes of an input, in the order of the names.

#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

at::Tensor example(const std::string& argument) {
  const auto colon = argument.find(':');
  const std::string type = argument.substr(0, colon);
  std::vector<int64_t> sizes;
  std::stringstream text(argument.substr(colon + 1));
  for (std::string size; std::getline(text, size, ',');) {
    sizes.push_back(std::stoll(size));
  }
  if (type == "long") return at::zeros(sizes, at::kLong);
  if (type == "byte") return at::zeros(sizes, at::kByte);
  if (type == "bool") return at::ones(sizes, at::kBool);  // masks: all tokens are real
  if (type == "float") return at::zeros(sizes, at::kFloat);
  throw std::invalid_argument("type must be long, byte, bool or float, got " + type);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::cerr << "usage: run_package PACKAGE TYPE:SIZES ...\n";
    return 2;
  }
  torch::inductor::AOTIModelPackageLoader loader(arguments[1]);
  for (const auto& [key, value] : loader.get_metadata()) {
    if (key == "inputs" || key == "outputs") std::cout << key << ": " << value << "\n";
  }
  std::vector<at::Tensor> inputs;
  for (int index = 2; index < count; ++index) {
    inputs.push_back(example(arguments[index]));
  }
  if (inputs.empty()) return 0;
  std::cout << loader.run(inputs).front() << "\n";
  return 0;
}
