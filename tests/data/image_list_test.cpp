#include "data/image_list.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "data/png_bytes.h"

namespace resnet {
namespace {

using namespace testing_data;

std::vector<std::string> paths(const std::vector<ListRow>& rows) {
  std::vector<std::string> list;
  for (const ListRow& row : rows) list.push_back(row.path + "=" + row.label + "/" + row.split);
  return list;
}

void expect_rejected(const std::string& text, const std::vector<std::string>& parts) {
  try {
    parse_image_list(text, "list");
    ADD_FAILURE() << text << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(ParseImageList, understands_the_usual_forms) {
  const std::vector<std::string> two = {"a.png=cat/", "b c.png=dog/"};
  EXPECT_EQ(paths(parse_image_list("a.png,cat\nb c.png,dog\n", "list")), two);
  EXPECT_EQ(paths(parse_image_list("\xef\xbb\xbf"
                                   "filename,label\r\na.png,cat\r\n\r\nb c.png, dog",
                                   "list")),
            two);
  EXPECT_EQ(paths(parse_image_list("Path\tClass\na.png\tcat\nb c.png\tdog\n", "list")), two);
  EXPECT_EQ(paths(parse_image_list("a.png cat\nb c.png dog\n", "list")), two);
  EXPECT_EQ(paths(parse_image_list("\"a, \"\"b\"\".png\",cat,train\n", "list")),
            (std::vector<std::string>{"a, \"b\".png=cat/train"}));
}

TEST(ParseImageList, rejects_what_is_no_list_with_its_line_and_byte) {
  expect_rejected("", {"list: byte 0 (line): found no image"});
  expect_rejected("path,label\n", {"found no image"});
  expect_rejected("a.png,cat\nb.png\n", {"byte 10 (line)", "found 1 fields in line 2"});
  expect_rejected("a.png,cat,train,x\n", {"found 4 fields"});
  expect_rejected("a.png,cat,often\n", {"(split): found 'often' in line 1"});
  expect_rejected("\"a.png,cat\n", {"(quote)"});
  expect_rejected("\"a\"b,cat\n", {"after a quoted field"});
  expect_rejected(std::string("a\0b,cat\n", 8), {"byte 1 (line)", "a byte of 0"});
}

TEST(ImageList, refuses_labels_that_no_model_file_can_keep_with_their_line) {
  const TempFolder folder;
  write_below(folder, "a.png", grey_png(3, 3, 8));
  const std::string list = folder.write("all.csv", text_bytes("a.png,dog,train\na.png,caf\xe9,train\na.png,dog,val\n"));
  for (const Split split : {Split::train, Split::validation}) {
    try {
      load_dataset(list, split);
      ADD_FAILURE() << "accepted";
    } catch (const UserError& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find("byte 16 (label): found a name in line 2 that is not UTF-8"),
                std::string::npos)
          << error.what();
    }
  }
}

TEST(ImageList, is_a_data_set_of_files_beside_it) {
  const TempFolder folder;
  for (const char* name : {"a.png", "b.png", "sub/c.png"}) write_below(folder, name, grey_png(3, 3, 8));
  const std::string list = folder.write("all.csv", text_bytes("a.png,dog,train\nsub/c.png,cat,train\nb.png,dog,val\n"));
  const Dataset train = load_dataset(list, Split::train);
  EXPECT_EQ(train.class_names, (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(train.labels, (std::vector<int32_t>{1, 0}));
  Image scratch;
  EXPECT_EQ(train.image(1, scratch).pixels[0], 8);
  EXPECT_EQ(load_dataset(list, Split::test).files, (std::vector<std::string>{"b.png"}));
  EXPECT_EQ(load_dataset(list, Split::test).split, Split::validation) << "what stands in says so";
  EXPECT_EQ(load_dataset(list, Split::validation).labels, (std::vector<int32_t>{1}));
}

TEST(ImageList, finds_the_lists_beside_train_csv) {
  const TempFolder folder;
  for (const char* name : {"a.png", "b.png"}) write_below(folder, name, grey_png(3, 3, 8));
  folder.write("train.csv", text_bytes("a.png,2\nb.png,0\n"));
  folder.write("val.csv", text_bytes("b.png,2\n"));
  for (const std::string& path : {folder.path(), folder / "train.csv"}) {
    const Dataset test = load_dataset(path, Split::test);
    EXPECT_EQ(test.class_names, (std::vector<std::string>{"0", "1", "2"}));
    EXPECT_EQ(test.labels, (std::vector<int32_t>{2}));
    EXPECT_EQ(test.split, Split::validation);
  }
  folder.write("val.csv", text_bytes("b.png,3\n"));
  EXPECT_THROW(load_dataset(folder.path(), Split::test), UserError);
  folder.write("train.csv", text_bytes("a.png,2\nnone.png,0\n"));
  EXPECT_THROW(load_dataset(folder.path(), Split::train), ResourceError);
  EXPECT_EQ(load_dataset(folder.path(), Split::train, {.missing_files = true}).file_bytes[1], -1);
  folder.write("train.csv", text_bytes("a.png,2000000000\n"));
  EXPECT_THROW(load_dataset(folder.path(), Split::train), ResourceError);
}

}  // namespace
}  // namespace resnet
