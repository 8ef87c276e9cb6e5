/* resnet: classify images with a trained residual network, from C. docs/library.md is the guide; resnet.hpp the same
 * for C++.
 *
 *   resnet_classifier* classifier = NULL;
 *   resnet_image photo = resnet_image_file("photo.jpg");
 *   resnet_prediction best[5];
 *   if (resnet_open("model.safetensors", NULL, &classifier) != RESNET_OK ||
 *       resnet_classify(classifier, &photo, 1, 5, best) != RESNET_OK)
 *     fprintf(stderr, "%s\n", resnet_last_error());
 *   resnet_close(classifier);
 *
 * Errors: a function that can fail returns a resnet_status and changes nothing else; resnet_last_error() tells what
 * came, what was expected and what to do. No function ends the process, prints, or lets an exception out.
 * Threads: one thread at a time may use a classifier; several classifiers may be used by several threads at once.
 * Lifetime: what a function points to inside a classifier is valid until resnet_close. Images are read during the call
 * alone. */
#ifndef RESNET_RESNET_H
#define RESNET_RESNET_H

#include <stddef.h>
#include <stdint.h>

#define RESNET_VERSION_MAJOR 0
#define RESNET_VERSION_MINOR 1
#define RESNET_VERSION_PATCH 0

/* The library is built with everything hidden but what is marked so. */
#define RESNET_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* The program's exit codes. */
typedef enum resnet_status {
  RESNET_OK = 0,
  RESNET_USAGE = 2,    /* an argument: null, out of range, an image of other channels than the model's */
  RESNET_BAD_DATA = 3, /* a file's content: the model's or an image's */
  RESNET_IO = 4,       /* a file that is missing or cannot be read */
  RESNET_LIMIT = 5,    /* not enough memory or threads; an image of too many pixels */
  RESNET_INTERNAL = 70 /* a bug of the library */
} resnet_status;

/* "0.1.0": of the library that runs, where RESNET_VERSION_* are of the header compiled against. */
RESNET_API const char* resnet_version(void);

/* What went wrong at this thread's last call that failed, on one line: "WHERE: WHAT CAME; WHAT WAS EXPECTED". Empty
 * when none has. Valid until the thread's next call that fails. */
RESNET_API const char* resnet_last_error(void);

/* A model ready to classify. */
typedef struct resnet_classifier resnet_classifier;

/* All zero but `struct_size` are the defaults. */
typedef struct resnet_options {
  size_t struct_size; /* sizeof(resnet_options), so that later versions may add to it */
  int threads;        /* that compute, 1 to 1024; 0: all CPUs this process may use */
  int measure;       /* not 0: this machine's fastest algorithms; measuring them takes seconds once and is remembered */
  int64_t max_batch; /* images computed together, 1 to 65536; 0: 32. More memory, for a little more speed */
  const char* backend; /* "cpu" or "reference" (slow plain loops, also for models in double); NULL: "cpu" */
} resnet_options;

static inline resnet_options resnet_default_options(void) {
  resnet_options options = {sizeof(resnet_options), 0, 0, 0, NULL};
  return options;
}

/* Opens a model file (safetensors with the metadata that `resnet train` writes). `options` may be NULL. On success
 * *classifier is to be given to resnet_close; otherwise it is NULL. */
RESNET_API resnet_status resnet_open(const char* model_path, const resnet_options* options,
                                     resnet_classifier** classifier);
/* NULL is allowed. */
RESNET_API void resnet_close(resnet_classifier* classifier);

/* About the model; 0 and NULL for a classifier that is NULL. */
RESNET_API const char* resnet_architecture(const resnet_classifier* classifier); /* "resnet18" */
RESNET_API size_t resnet_class_count(const resnet_classifier* classifier);
RESNET_API const char* resnet_class_name(const resnet_classifier* classifier, size_t index); /* NULL past the last */
RESNET_API int64_t resnet_channels(const resnet_classifier* classifier);   /* of its images: 1 grey, 3 RGB */
RESNET_API int64_t resnet_input_size(const resnet_classifier* classifier); /* side of the square it looks at, pixels */

typedef enum resnet_image_kind {
  RESNET_IMAGE_FILE = 1,    /* a JPEG, PNG or WebP file */
  RESNET_IMAGE_ENCODED = 2, /* such a file's bytes in memory */
  RESNET_IMAGE_PIXELS = 3   /* pixels in memory */
} resnet_image_kind;

/* One image, of any size: the classifier resizes, crops and normalises as its model file says. Files and encoded bytes
 * are converted to grey or RGB as the model wants. Pixels are 8 bits a channel, in the model's channels, in RGB order;
 * that of row y, column x and channel c is pixels[y * row_stride + x * column_stride + c * channel_stride]. */
typedef struct resnet_image {
  resnet_image_kind kind;
  const char* path;                                    /* FILE */
  const void* encoded;                                 /* ENCODED */
  size_t encoded_bytes;                                /* ENCODED */
  const uint8_t* pixels;                               /* PIXELS, and what follows */
  int64_t height, width, channels;                     /* height and width 1 to 65535 */
  ptrdiff_t row_stride, column_stride, channel_stride; /* bytes; may be negative */
} resnet_image;

static inline resnet_image resnet_image_file(const char* path) {
  resnet_image image = {RESNET_IMAGE_FILE, path, NULL, 0, NULL, 0, 0, 0, 0, 0, 0};
  return image;
}

static inline resnet_image resnet_image_encoded(const void* bytes, size_t count) {
  resnet_image image = {RESNET_IMAGE_ENCODED, NULL, bytes, count, NULL, 0, 0, 0, 0, 0, 0};
  return image;
}

/* Pixels [height, width, channels], without gaps. */
static inline resnet_image resnet_image_hwc(const uint8_t* pixels, int64_t height, int64_t width, int64_t channels) {
  resnet_image image = {RESNET_IMAGE_PIXELS, NULL, NULL, 0, pixels, height, width, channels, 0, 0, 0};
  image.row_stride = (ptrdiff_t)(width * channels);
  image.column_stride = (ptrdiff_t)channels;
  image.channel_stride = 1;
  return image;
}

/* Pixels [channels, height, width], without gaps. */
static inline resnet_image resnet_image_chw(const uint8_t* pixels, int64_t channels, int64_t height, int64_t width) {
  resnet_image image = {RESNET_IMAGE_PIXELS, NULL, NULL, 0, pixels, height, width, channels, 0, 0, 0};
  image.row_stride = (ptrdiff_t)width;
  image.column_stride = 1;
  image.channel_stride = (ptrdiff_t)(height * width);
  return image;
}

/* A class of an image. `name` belongs to the classifier. */
typedef struct resnet_prediction {
  size_t index;
  double probability; /* softmax of the logits */
  const char* name;
} resnet_prediction;

/* The k most probable classes of each image, best first: predictions[i * k + j] is image i's j-th. k: 1 to
 * resnet_class_count. When one image fails none is written, and the message names it. */
RESNET_API resnet_status resnet_classify(resnet_classifier* classifier, const resnet_image* images, size_t count,
                                         size_t k, resnet_prediction* predictions);

/* The network's outputs before softmax: logits[i * resnet_class_count + j] is image i's for class j. */
RESNET_API resnet_status resnet_logits(resnet_classifier* classifier, const resnet_image* images, size_t count,
                                       float* logits);

#ifdef __cplusplus
}
#endif

#endif
