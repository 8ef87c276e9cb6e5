#include "base/control_groups.h"

#include <gtest/gtest.h>

#include <string>

namespace resnet {
namespace {

using Groups = std::vector<ControlGroup>;

// Lines of mountinfo as Debian 12 has them, as systemd's hybrid and a container have them.
const std::string kUnified = "24 23 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string kHybrid =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

TEST(ControlGroups, OfVersionTwoAreTheGroupAndItsParents) {
  const Groups want{{"/sys/fs/cgroup/user.slice/a b", 2}, {"/sys/fs/cgroup/user.slice", 2}, {"/sys/fs/cgroup", 2}};
  for (const char* controller : {"cpu", "memory"})
    EXPECT_EQ(control_groups(controller, "0::/user.slice/a b\n", kUnified), want);
  EXPECT_EQ(control_groups("cpu", "0::/", kUnified), (Groups{{"/sys/fs/cgroup", 2}}));
}

TEST(ControlGroups, OfVersionOneAreTheControllersOwnBesideVersionTwo) {
  const std::string cgroup = "4:memory:/jobs/7\n3:cpuset:/set\n2:cpu,cpuacct:/half\n1:name=systemd:/init\n0::/\n";
  EXPECT_EQ(control_groups("cpu", cgroup, kHybrid), (Groups{{"/sys/fs/cgroup/cpu,cpuacct/half", 1},
                                                            {"/sys/fs/cgroup/cpu,cpuacct", 1},
                                                            {"/sys/fs/cgroup/unified", 2}}));
  EXPECT_EQ(control_groups("memory", cgroup, kHybrid), (Groups{{"/sys/fs/cgroup/memory/jobs/7", 1},
                                                               {"/sys/fs/cgroup/memory/jobs", 1},
                                                               {"/sys/fs/cgroup/memory", 1},
                                                               {"/sys/fs/cgroup/unified", 2}}));
}

TEST(ControlGroups, AContainersMountShowsItsOwnGroupAsTheRoot) {
  const std::string mount = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
  const Groups root{{"/sys/fs/cgroup/memory", 1}};
  EXPECT_EQ(control_groups("memory", "4:memory:/docker/abc\n", mount), root);
  EXPECT_EQ(control_groups("memory", "4:memory:/docker/abc/x\n", mount),
            (Groups{{"/sys/fs/cgroup/memory/x", 1}, root[0]}));
  for (const char* outside : {"/docker/abcd", "/docker", "/", "/docker/abc/../x", "/../../y"})
    EXPECT_EQ(control_groups("memory", std::string("4:memory:") + outside + "\n", mount), root) << outside;
}

TEST(ControlGroups, TextsThatAreNoneOfTheKernelsGiveNone) {
  for (const char* cgroup :
       {"", "\n", ":", "::", "0::", "0::relative", "4:memory", "4:memory:/a", "4:cpus:/a", "4:cpuset:/a"})
    EXPECT_EQ(control_groups("cpu", cgroup, kHybrid), Groups{}) << cgroup;
  for (const char* mounts :
       {"", "\n", "-", "24 23 0:22 / /sys/fs/cgroup rw - cgroup2\n", "24 23 0:22 / - cgroup2 cgroup2 rw\n",
        "24 23 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"})
    EXPECT_EQ(control_groups("cpu", "2:cpu:/a\n0::/a\n", mounts), Groups{}) << mounts;
}

TEST(ControlGroups, AFileThatIsNotThereIsEmpty) { EXPECT_EQ((ControlGroup{"/nowhere", 2}.text("cpu.max")), ""); }

}  // namespace
}  // namespace resnet
