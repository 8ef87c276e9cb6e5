#include "data/loader.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <numeric>
#include <set>
#include <thread>
#include <utility>

#include "base/error.h"
#include "data/png_bytes.h"

namespace resnet {
namespace {

/// `count` images of 6x6 whose pixels and labels tell which image they are.
Dataset numbered(int64_t count) {
  Dataset data;
  data.name = "numbered";
  data.count = count;
  data.height = data.width = 6;
  data.class_names = {"0", "1", "2", "3", "4", "5", "6"};
  for (int64_t i = 0; i < count; ++i) {
    data.labels.push_back(static_cast<int32_t>(i % 7));
    for (int64_t k = 0; k < 36; ++k) data.pixels.push_back(static_cast<uint8_t>(i * 5 + k * 3));
  }
  return data;
}

LoaderOptions small(int workers = 1) {
  LoaderOptions options;
  options.batch_size = 8;
  options.seed = 42;
  options.workers = workers;
  options.preprocessing.image_size = 10;
  return options;
}

std::vector<Batch> collect(const Dataset& data, const LoaderOptions& options) {
  Loader loader(data, options);
  std::vector<Batch> batches;
  while (const Batch* batch = loader.next()) batches.push_back(*batch);
  EXPECT_EQ(loader.next(), nullptr);
  return batches;
}

void expect_same(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.epoch, b.epoch);
  EXPECT_EQ(a.next, b.next);
  EXPECT_EQ(a.last_of_epoch, b.last_of_epoch);
  EXPECT_EQ(a.samples, b.samples);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.images.shape(), b.images.shape());
  EXPECT_TRUE(a.images == b.images);
}

TEST(Loader, keeps_the_partial_last_batch) {
  const Dataset data = numbered(21);
  const std::vector<Batch> batches = collect(data, small());
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[0].size(), 8);
  EXPECT_EQ(batches[1].size(), 8);
  EXPECT_EQ(batches[2].size(), 5);
  EXPECT_EQ(batches[2].images.shape(), (Shape{5, 1, 10, 10}));
  EXPECT_EQ(batches[2].images.elements(), 500);
  EXPECT_FALSE(batches[1].last_of_epoch);
  EXPECT_TRUE(batches[2].last_of_epoch);
  EXPECT_EQ(batches[0].next, (LoaderPosition{0, 8}));
  EXPECT_EQ(batches[2].next, (LoaderPosition{1, 0}));
  const Loader loader(data, small());
  EXPECT_EQ(loader.samples_per_epoch(), 21);
  EXPECT_EQ(loader.batches_per_epoch(), 3);
}

TEST(Loader, gives_each_sample_once_an_epoch_with_its_own_pixels_and_label) {
  const Dataset data = numbered(45);
  LoaderOptions options = small(2);
  options.epochs = 3;
  std::vector<std::multiset<int64_t>> seen(3);
  PreprocessScratch scratch;
  std::vector<float> expected(100);
  for (const Batch& batch : collect(data, options)) {
    for (size_t i = 0; i < batch.samples.size(); ++i) {
      const int64_t sample = batch.samples[i];
      seen[static_cast<size_t>(batch.epoch)].insert(sample);
      EXPECT_EQ(batch.labels[i], sample % 7);
      preprocess(data.image(sample), options.preprocessing, scratch, expected);
      EXPECT_TRUE(
          std::equal(expected.begin(), expected.end(), batch.images.as<float>().begin() + static_cast<long>(100 * i)));
    }
  }
  std::vector<int64_t> all(45);
  std::iota(all.begin(), all.end(), 0);
  for (const auto& epoch : seen) EXPECT_EQ(epoch, (std::multiset<int64_t>(all.begin(), all.end())));
}

TEST(Loader, gives_the_same_batches_for_any_number_of_workers) {
  const Dataset data = numbered(101);
  for (const bool shuffle : {true, false}) {
    LoaderOptions options = small(0);
    options.shuffle = shuffle;
    options.epochs = 3;
    const std::vector<Batch> expected = collect(data, options);
    ASSERT_EQ(expected.size(), 3u * 13u);
    for (const int workers : {1, 3, 8}) {
      options.workers = workers;
      const std::vector<Batch> batches = collect(data, options);
      ASSERT_EQ(batches.size(), expected.size());
      for (size_t i = 0; i < batches.size(); ++i) expect_same(batches[i], expected[i]);
    }
  }
}

TEST(Loader, resumed_anywhere_gives_the_tail_of_the_uninterrupted_run) {
  const Dataset data = numbered(45);
  LoaderOptions options = small();
  options.epochs = 3;
  const std::vector<Batch> whole = collect(data, options);
  ASSERT_EQ(whole.size(), 18u);
  for (size_t done = 1; done <= whole.size(); ++done) {
    options.start = whole[done - 1].next;
    options.workers = static_cast<int>(done % 3);
    const std::vector<Batch> tail = collect(data, options);
    ASSERT_EQ(tail.size(), whole.size() - done) << done;
    for (size_t i = 0; i < tail.size(); ++i) expect_same(tail[i], whole[done + i]);
  }
}

/// The values of image `i` of a batch of 10x10 images.
std::vector<float> image_of(const Batch& batch, size_t i) {
  const auto values = batch.images.as<float>().subspan(100 * i, 100);
  return {values.begin(), values.end()};
}

LoaderOptions augmented(int workers = 1) {
  LoaderOptions options = small(workers);
  options.augmentation = {.random_crop_padding = 2, .hflip_prob = 0.5};
  options.epochs = 3;
  return options;
}

TEST(Loader, augments_the_same_for_any_number_of_workers) {
  const Dataset data = numbered(45);
  const std::vector<Batch> expected = collect(data, augmented(0));
  ASSERT_EQ(expected.size(), 18u);
  for (const int workers : {1, 3}) {
    const std::vector<Batch> batches = collect(data, augmented(workers));
    ASSERT_EQ(batches.size(), expected.size());
    for (size_t i = 0; i < batches.size(); ++i) expect_same(batches[i], expected[i]);
  }
  LoaderOptions plain = augmented(0);
  plain.augmentation = {};
  const std::vector<Batch> unchanged = collect(data, plain);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(unchanged[i].samples, expected[i].samples) << "the order does not depend on it";
    EXPECT_FALSE(unchanged[i].images == expected[i].images);
  }
}

TEST(Loader, resumed_anywhere_augments_as_the_uninterrupted_run) {
  const Dataset data = numbered(45);
  LoaderOptions options = augmented();
  const std::vector<Batch> whole = collect(data, options);
  ASSERT_EQ(whole.size(), 18u);
  for (const size_t done : {1u, 3u, 6u, 10u, 17u}) {
    options.start = whole[done - 1].next;
    options.workers = static_cast<int>(done % 3);
    const std::vector<Batch> tail = collect(data, options);
    ASSERT_EQ(tail.size(), whole.size() - done) << done;
    for (size_t i = 0; i < tail.size(); ++i) expect_same(tail[i], whole[done + i]);
  }
}

TEST(Loader, augments_by_seed_epoch_and_sample_alone) {
  const Dataset data = numbered(45);
  const LoaderOptions options = augmented();
  PreprocessScratch scratch;
  std::vector<float> expected(100);
  std::vector<std::map<int64_t, std::vector<float>>> pictures(3);  // by epoch and sample
  for (const Batch& batch : collect(data, options)) {
    for (size_t i = 0; i < batch.samples.size(); ++i) {
      const int64_t sample = batch.samples[i];
      const CropFlip change = draw_crop_flip(options.augmentation, options.seed, batch.epoch, sample);
      preprocess(data.image(sample), options.preprocessing, scratch, expected, change);
      EXPECT_EQ(image_of(batch, i), expected) << "epoch " << batch.epoch << " sample " << sample;
      pictures[static_cast<size_t>(batch.epoch)][sample] = expected;
    }
  }
  // Neither the order nor the batch size matters; the seed and the epoch do.
  LoaderOptions other = options;
  other.shuffle = false;
  other.batch_size = 7;
  for (const Batch& batch : collect(data, other)) {
    for (size_t i = 0; i < batch.samples.size(); ++i) {
      EXPECT_EQ(image_of(batch, i), pictures[static_cast<size_t>(batch.epoch)].at(batch.samples[i]));
    }
  }
  other.seed = 43;
  int same_by_seed = 0, same_by_epoch = 0;
  for (const Batch& batch : collect(data, other)) {
    for (size_t i = 0; i < batch.samples.size(); ++i) {
      same_by_seed += image_of(batch, i) == pictures[static_cast<size_t>(batch.epoch)].at(batch.samples[i]);
    }
  }
  for (const auto& [sample, picture] : pictures[0]) same_by_epoch += picture == pictures[1].at(sample);
  // One pair in 50 draws the same change: 2.7 of 135 and 0.9 of 45.
  EXPECT_LT(same_by_seed, 15);
  EXPECT_LT(same_by_epoch, 10);
}

TEST(Loader, pads_crops_with_zeros) {
  Dataset data = numbered(200);
  std::fill(data.pixels.begin(), data.pixels.end(), uint8_t{255});
  LoaderOptions options = augmented();
  options.shuffle = false;
  options.epochs = 1;
  std::set<std::pair<int64_t, int64_t>> offsets;
  for (const Batch& batch : collect(data, options)) {
    for (size_t i = 0; i < batch.samples.size(); ++i) {
      const CropFlip change = draw_crop_flip(options.augmentation, options.seed, 0, batch.samples[i]);
      const std::vector<float> picture = image_of(batch, i);
      const auto rows = 10 - std::abs(change.top);
      const auto columns = 10 - std::abs(change.left);
      EXPECT_EQ(std::count(picture.begin(), picture.end(), 1.0f), rows * columns);
      EXPECT_EQ(std::count(picture.begin(), picture.end(), 0.0f), 100 - rows * columns);
      offsets.insert({change.top, change.left});
    }
  }
  EXPECT_EQ(offsets.size(), 25u) << "every offset of -2..2 in both directions";
}

TEST(Loader, flips_every_image_at_probability_one) {
  const Dataset data = numbered(20);
  LoaderOptions options = small();
  const std::vector<Batch> plain = collect(data, options);
  options.augmentation.hflip_prob = 1;
  const std::vector<Batch> flipped = collect(data, options);
  ASSERT_EQ(flipped.size(), plain.size());
  for (size_t b = 0; b < plain.size(); ++b) {
    for (size_t i = 0; i < plain[b].samples.size(); ++i) {
      std::vector<float> mirrored = image_of(plain[b], i);
      for (auto row = mirrored.begin(); row != mirrored.end(); row += 10) std::reverse(row, row + 10);
      EXPECT_EQ(image_of(flipped[b], i), mirrored);
      EXPECT_NE(mirrored, image_of(plain[b], i)) << "the images are not symmetric";
    }
  }
}

TEST(Loader, takes_the_end_of_an_epoch_for_the_start_of_the_next) {
  const Dataset data = numbered(20);
  LoaderOptions options = small();
  options.epochs = 2;
  options.start = {.epoch = 0, .sample = 20};
  const std::vector<Batch> batches = collect(data, options);
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[0].epoch, 1);
  options.start = {.epoch = 1, .sample = 20};
  EXPECT_TRUE(collect(data, options).empty());
}

TEST(Loader, uses_only_the_first_images_under_a_limit) {
  const Dataset data = numbered(50);
  LoaderOptions options = small();
  options.limit = 19;
  std::set<int64_t> seen;
  for (const Batch& batch : collect(data, options)) seen.insert(batch.samples.begin(), batch.samples.end());
  EXPECT_EQ(seen.size(), 19u);
  EXPECT_EQ(*seen.rbegin(), 18);
  options.limit = 1000;
  EXPECT_EQ(Loader(data, options).samples_per_epoch(), 50);
}

TEST(Loader, keeps_the_order_of_the_file_without_shuffling) {
  const Dataset data = numbered(20);
  LoaderOptions options = small();
  options.shuffle = false;
  options.epochs = 2;
  std::vector<int64_t> samples;
  for (const Batch& batch : collect(data, options)) {
    samples.insert(samples.end(), batch.samples.begin(), batch.samples.end());
  }
  std::vector<int64_t> expected(40);
  for (size_t i = 0; i < 40; ++i) expected[i] = static_cast<int64_t>(i % 20);
  EXPECT_EQ(samples, expected);
}

TEST(Loader, shuffles_differently_for_another_seed_and_another_epoch_and_never_otherwise) {
  const std::vector<int64_t> order = shuffled_order(1000, 1, 0);
  EXPECT_EQ(shuffled_order(1000, 1, 0), order);
  EXPECT_NE(shuffled_order(1000, 2, 0), order);
  EXPECT_NE(shuffled_order(1000, 1, 1), order);
  std::vector<int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(sorted[static_cast<size_t>(i)], i);
  EXPECT_TRUE(shuffled_order(0, 1, 0).empty());
  EXPECT_EQ(shuffled_order(1, 1, 0), std::vector<int64_t>{0});
  // The order is part of what a checkpoint relies on, so it must never change.
  EXPECT_EQ(shuffled_order(10, 7, 3), (std::vector<int64_t>{5, 8, 4, 1, 2, 3, 9, 7, 6, 0}));
}

TEST(Loader, shuffles_every_sample_to_every_place_about_equally_often) {
  // 5 samples, 4000 epochs: each of the 25 counts is 800 on average with a deviation of 25.3; five of them are 127.
  std::vector<int> counts(25);
  for (uint64_t epoch = 0; epoch < 4000; ++epoch) {
    const std::vector<int64_t> order = shuffled_order(5, 3, epoch);
    for (size_t place = 0; place < 5; ++place) ++counts[place * 5 + static_cast<size_t>(order[place])];
  }
  for (const int count : counts) EXPECT_NEAR(count, 800, 127);
}

TEST(Loader, throws_what_a_worker_threw_at_the_batch_it_belongs_to_and_ever_after) {
  Dataset data = numbered(40);
  data.pixels.resize(20 * 36);  // images 20 to 39 are missing
  for (const int workers : {0, 1, 3}) {
    LoaderOptions options = small(workers);
    options.shuffle = false;
    Loader loader(data, options);
    ASSERT_NE(loader.next(), nullptr);
    ASSERT_NE(loader.next(), nullptr);  // 8 to 15; the next has image 20
    EXPECT_THROW(loader.next(), InternalError) << workers;
    EXPECT_THROW(loader.next(), InternalError) << workers;
  }
}

TEST(Loader, keeps_a_batch_untouched_until_the_next_call) {
  const Dataset data = numbered(200);
  LoaderOptions options = small(3);
  options.epochs = 4;
  Loader loader(data, options);
  while (const Batch* batch = loader.next()) {
    const Batch copy = *batch;
    std::this_thread::yield();  // the workers go on meanwhile
    expect_same(*batch, copy);
  }
}

TEST(Loader, ends_cleanly_at_any_moment) {
  const Dataset data = numbered(100);
  for (int round = 0; round < 60; ++round) {
    LoaderOptions options = small(round % 5);
    options.epochs = 2;
    Loader loader(data, options);
    for (int taken = 0; taken < round % 30; ++taken) loader.next();
  }
}

std::atomic<int> handled{0};
std::atomic<pthread_t> handler_thread;

TEST(Loader, leaves_signals_to_the_thread_that_made_it) {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {
    handler_thread = pthread_self();
    ++handled;
  };
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  const Dataset data = numbered(50);
  LoaderOptions options = small(4);
  Loader loader(data, options);
  ASSERT_NE(loader.next(), nullptr);
  // Blocked here, it would go to a worker that takes it.
  sigset_t usr1, old;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, &old);
  kill(getpid(), SIGUSR1);
  while (loader.next() != nullptr) std::this_thread::yield();
  EXPECT_EQ(handled, 0);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  EXPECT_EQ(handled, 1);
  EXPECT_TRUE(pthread_equal(handler_thread, pthread_self()));
  sigaction(SIGUSR1, &before, nullptr);
}

TEST(Loader, gives_the_views_of_an_image_one_after_the_other) {
  const Dataset data = numbered(11);
  for (const int workers : {0, 2}) {
    LoaderOptions options = small(workers);
    options.preprocessing.crop_pct = 0.8;
    options.views = Views::ten_crop;
    PreprocessScratch scratch;
    std::vector<float> expected(100);
    const std::vector<Batch> batches = collect(data, options);
    ASSERT_EQ(batches.size(), 2u);
    EXPECT_EQ(batches[1].images.shape(), (Shape{30, 1, 10, 10}));
    for (const Batch& batch : batches) {
      size_t at = 0;
      for (const int64_t sample : batch.samples) {
        for (const CropView& view : list_of(Views::ten_crop)) {
          preprocess(data.image(sample), options.preprocessing, scratch, expected, {}, view);
          EXPECT_TRUE(std::equal(expected.begin(), expected.end(),
                                 batch.images.as<float>().begin() + static_cast<long>(100 * at++)));
        }
      }
    }
  }
}

TEST(Loader, refuses_options_out_of_range) {
  const Dataset data = numbered(10);
  const auto refuses = [&](auto change) {
    LoaderOptions options = small();
    change(options);
    EXPECT_THROW(Loader(data, options), UserError);
  };
  refuses([](LoaderOptions& options) { options.batch_size = 0; });
  refuses([](LoaderOptions& options) { options.batch_size = -1; });
  refuses([](LoaderOptions& options) { options.limit = -1; });
  refuses([](LoaderOptions& options) { options.workers = -1; });
  refuses([](LoaderOptions& options) { options.workers = 257; });
  refuses([](LoaderOptions& options) { options.epochs = -1; });
  refuses([](LoaderOptions& options) { options.preprocessing.image_size = 0; });
  refuses([](LoaderOptions& options) { options.preprocessing.mean = {0.1f, 0.2f}; });
  refuses([](LoaderOptions& options) { options.views = Views::ten_crop; });
  refuses([](LoaderOptions& options) { options.augmentation.random_crop_padding = 10; });
  refuses([](LoaderOptions& options) { options.augmentation.hflip_prob = 2; });
  refuses([](LoaderOptions& options) { options.start = {.epoch = -1, .sample = 0}; });
  refuses([](LoaderOptions& options) { options.start = {.epoch = 0, .sample = 11}; });
  refuses([](LoaderOptions& options) { options.start = {.epoch = 0, .sample = -1}; });
  Dataset empty;
  EXPECT_THROW(Loader(empty, small()), UserError);
  Dataset unlabelled = numbered(10);
  unlabelled.labels.pop_back();
  EXPECT_THROW(Loader(unlabelled, small()), UserError);
}

TEST(Loader, takes_a_batch_size_larger_than_the_data) {
  const Dataset data = numbered(10);
  LoaderOptions options = small();
  options.batch_size = INT64_MAX;
  const std::vector<Batch> batches = collect(data, options);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].size(), 10);
}

TEST(Loader, has_nothing_to_give_for_no_epochs) {
  const Dataset data = numbered(10);
  for (const int workers : {0, 2}) {
    LoaderOptions options = small(workers);
    options.epochs = 0;
    EXPECT_TRUE(collect(data, options).empty());
  }
}

/// `count` files of one class, each of one grey value: its index; those in `bad` are cut short.
Dataset files_with_bad_ones(const testing_data::TempFolder& folder, int count, const std::set<int>& bad) {
  for (int i = 0; i < count; ++i) {
    const testing_data::Bytes png = testing_data::grey_png(4, 4, static_cast<uint8_t>(i));
    testing_data::write_below(folder, fmt::format("train/a/{:03}.png", i),
                              bad.count(i) ? testing_data::cut(png, 46) : png);
  }
  return load_dataset(folder.path(), Split::train, {.channels = 1});
}

TEST(Loader, names_a_bad_file_and_stops) {
  const testing_data::TempFolder folder;
  const Dataset data = files_with_bad_ones(folder, 20, {11});
  LoaderOptions options = small();
  options.shuffle = false;
  Loader loader(data, options);
  ASSERT_NE(loader.next(), nullptr);
  try {
    loader.next();
    FAIL() << "a bad file was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("train/a/011.png: byte "), std::string::npos) << error.what();
  }
}

TEST(Loader, replaces_a_bad_file_by_the_next_good_one_for_any_number_of_workers) {
  const testing_data::TempFolder folder;
  const Dataset data = files_with_bad_ones(folder, 20, {0, 11, 12, 19});
  for (const int workers : {0, 1, 3}) {
    LoaderOptions options = small(workers);
    options.on_bad_sample = BadSample::replace;
    options.epochs = 2;
    std::vector<int64_t> bad;
    for (const Batch& batch : collect(data, options)) {
      EXPECT_TRUE(batch.size() == 8 || batch.last_of_epoch);
      for (const Batch::Bad& b : batch.bad) bad.push_back(b.sample);
      for (size_t i = 0; i < batch.samples.size(); ++i) {
        EXPECT_EQ(data.labels[static_cast<size_t>(batch.samples[i])], batch.labels[i]);
        EXPECT_FLOAT_EQ(batch.images.as<float>()[i * 100] * 255, static_cast<float>(batch.samples[i]));
      }
    }
    // In the order of the schedule; each epoch meets each of them once.
    std::vector<int64_t> expected;
    for (const uint64_t epoch : {0u, 1u}) {
      for (const int64_t sample : shuffled_order(20, options.seed, epoch)) {
        if (sample == 0 || sample == 11 || sample == 12 || sample == 19) expected.push_back(sample);
      }
    }
    EXPECT_EQ(bad, expected) << workers;
  }
  LoaderOptions in_order = small();
  in_order.shuffle = false;
  in_order.on_bad_sample = BadSample::replace;
  in_order.batch_size = 20;
  in_order.limit = 13;
  // 0 by 1; 11 by 12, which is bad, by 0, which is bad (the limit wraps around), by 1; 12 likewise.
  EXPECT_EQ(collect(data, in_order)[0].samples, (std::vector<int64_t>{1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 1}));
}

TEST(Loader, passes_over_a_missing_file_but_not_over_a_machine_that_can_open_no_more) {
  const testing_data::TempFolder folder;
  const Dataset data = files_with_bad_ones(folder, 20, {});
  std::filesystem::remove(folder / "train/a/003.png");
  LoaderOptions options = small(0);
  options.shuffle = false;
  options.on_bad_sample = BadSample::leave_out;
  EXPECT_EQ(collect(data, options)[0].samples, (std::vector<int64_t>{0, 1, 2, 4, 5, 6, 7}));
  Loader loader(data, options);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  try {
    loader.next();
    ADD_FAILURE() << "skipped";
  } catch (const ResourceError& error) {
    EXPECT_NE(std::string(error.what()).find("Too many open files"), std::string::npos) << error.what();
  }
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST(Loader, leaves_bad_files_out_even_if_nothing_is_left) {
  const testing_data::TempFolder folder;
  const Dataset data = files_with_bad_ones(folder, 20, {3, 8, 9, 10, 11, 12, 13, 14, 15});
  LoaderOptions options = small(2);
  options.shuffle = false;
  options.on_bad_sample = BadSample::leave_out;
  const std::vector<Batch> batches = collect(data, options);
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[0].samples, (std::vector<int64_t>{0, 1, 2, 4, 5, 6, 7}));
  EXPECT_EQ(batches[0].images.shape()[0], 7);
  EXPECT_FLOAT_EQ(batches[0].images.as<float>()[300] * 255, 4);
  EXPECT_EQ(batches[1].size(), 0);
  EXPECT_EQ(batches[1].bad.size(), 8u);
  EXPECT_EQ(batches[2].samples, (std::vector<int64_t>{16, 17, 18, 19}));
}

}  // namespace
}  // namespace resnet
