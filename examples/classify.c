/* The logits of an image, from C:  classify_c MODEL.safetensors IMAGE
 * Built against the installed library: see docs/library.md and this folder's CMakeLists.txt. */
#include <resnet/resnet.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: classify_c MODEL.safetensors IMAGE\n");
    return RESNET_USAGE;
  }
  resnet_classifier* classifier = NULL;
  float* logits = NULL;
  resnet_status status = resnet_open(argv[1], NULL, &classifier);
  const size_t classes = resnet_class_count(classifier);
  if (status == RESNET_OK) {
    const resnet_image image = resnet_image_file(argv[2]);
    logits = malloc(classes * sizeof *logits);
    status = logits ? resnet_logits(classifier, &image, 1, logits) : RESNET_LIMIT;
  }
  if (status == RESNET_OK) {
    for (size_t i = 0; i < classes; ++i) printf("%.9g %s\n", logits[i], resnet_class_name(classifier, i));
  } else {
    fprintf(stderr, "classify_c: error: %s\n", resnet_last_error());
  }
  free(logits);
  resnet_close(classifier);
  return status;
}
