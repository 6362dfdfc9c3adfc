import Glibc
import Testing
import WireJSON

@testable import TaskRunner

/// Directories of jobs: where they are, what may be done in them, and that nothing outside is ever touched.
struct DirectoryTests {
    private let temporary: TemporaryDirectory
    private let cache: String
    private let keepAll = PruneLimits(age: .seconds(1_000_000_000), count: 1000, bytes: 1 << 40)

    init() throws {
        temporary = try TemporaryDirectory()
        cache = temporary.path + "/gpu0"
    }

    private func directories(_ limits: PruneLimits? = nil) throws -> TaskDirectories {
        try TaskDirectories(cachePath: cache, limits: limits ?? keepAll)
    }

    @Test func aJobGetsItsDirectoryInTheCardsCache() throws {
        let directories = try directories()
        #expect(try directories.open(task: "a").path == cache + "/tasks/a")
        try write("kept", to: cache + "/tasks/a/file")
        #expect(try directories.open(task: "a").path == cache + "/tasks/a")
        #expect(try text(contents(of: cache + "/tasks/a/file")) == "kept")
    }

    @Test(arguments: ["", ".", "..", "a/b", "/etc", "a\0b"])
    func aNameThatIsNoComponentIsRefused(_ name: String) throws {
        let error = #expect(throws: TaskRunnerError.self) { try directories().open(task: name) }
        #expect(error?.code == .invalidTask)
    }

    @Test func aPlantedLinkIsReplacedAndNotFollowed() throws {
        let outside = temporary.path + "/outside"
        mkdir(outside, 0o755)
        try write("kept", to: outside + "/file")
        let directories = try directories()
        _ = try directories.open(task: "other")
        symlink(outside, cache + "/tasks/a")
        #expect(try directories.open(task: "a").path == cache + "/tasks/a")
        // The folder of all jobs itself replaced by a link, or removed.
        rename(cache + "/tasks", cache + "/away")
        symlink(outside, cache + "/tasks")
        #expect(try directories.open(task: "b").path == cache + "/tasks/b")
        rename(cache, temporary.path + "/gone")
        #expect(try directories.open(task: "c").path == cache + "/tasks/c")
        #expect(try Directory(path: outside).names() == ["file"])
    }

    @Test func aWorkingDirectoryHasToStayInTheCache() throws {
        let directories = try directories()
        mkdir(cache + "/work", 0o755)
        symlink("/etc", cache + "/escape")
        symlink("work", cache + "/inside")
        mkdir(cache + "2", 0o755)
        try write("", to: cache + "/file")
        #expect(try directories.resolve("work").path == cache + "/work")
        #expect(try directories.resolve("inside").path == cache + "/work")
        #expect(try directories.resolve(cache + "/work").path == cache + "/work")
        #expect(try directories.resolve(".").path == cache)
        for path in ["escape", "..", "work/../..", "/", "/etc", cache + "2", "escape/.."] {
            let error = #expect(throws: TaskRunnerError.self) { try directories.resolve(path) }
            #expect(error?.code == .outsideCache, "\(path)")
        }
        for path in ["missing", "file", "a\0b"] {
            let error = #expect(throws: TaskRunnerError.self) { try directories.resolve(path) }
            #expect(error?.code == .workingDirectory || error?.code == .outsideCache, "\(path)")
        }
        #expect(try directories.resolve("/etc/ssl", allowed: ["/etc"]).path == "/etc/ssl")
        #expect(throws: TaskRunnerError.self) { try directories.resolve("/usr", allowed: ["/etc"]) }
    }

    @Test func finishedDirectoriesGoByCountAgeAndBytes() throws {
        func left(_ limits: PruneLimits, now: Double = 1000) throws -> [String] {
            let directories = try directories(limits)
            for (index, name) in ["a", "b", "c"].enumerated() {
                _ = try directories.open(task: name)
                try Descriptor(path: cache + "/tasks/\(name)/data", flags: O_WRONLY | O_CREAT, mode: 0o644)
                    .write([UInt8](repeating: 1, count: 100_000)[...])
                directories.release(task: name, at: 900 + Double(index))
            }
            _ = try directories.open(task: "running")
            #expect(directories.prune(at: now).isEmpty)
            return try Directory(path: cache + "/tasks").names().sorted()
        }
        #expect(try left(keepAll) == ["a", "b", "c", "running"])
        #expect(try left(PruneLimits(age: .seconds(1000), count: 2, bytes: 1 << 40)) == ["b", "c", "running"])
        #expect(try left(PruneLimits(age: .seconds(1000), count: 9, bytes: 150_000)) == ["c", "running"])
        let old = PruneLimits(age: .seconds(98), count: 9, bytes: 1 << 40)
        #expect(try left(old) == ["c", "running"])
        #expect(try left(PruneLimits(age: .zero, count: 0, bytes: 0)) == ["running"])
    }

    @Test func aNewLifePrunesWhatTheLastOneLeft() throws {
        _ = try directories().open(task: "a")
        let directories = try directories(PruneLimits(age: .seconds(60), count: 0, bytes: 0))
        _ = try directories.open(task: "b")
        #expect(directories.prune(at: 0).isEmpty)
        #expect(try Directory(path: cache + "/tasks").names() == ["b"])
    }

    @Test func anEmptyDirectoryBecomesThatOfTheNextJob() throws {
        let directories = try directories()
        func inode(_ name: String) throws -> ino_t { try Directory(path: cache + "/tasks").status(of: name).st_ino }
        func names() throws -> [String] { try Directory(path: cache + "/tasks").names().sorted() }
        _ = try directories.open(task: "a")
        let first = try inode("a")
        directories.release(task: "a", at: 1)
        #expect(try directories.open(task: "b").path == cache + "/tasks/b")
        #expect(try inode("b") == first)
        #expect(try names() == ["b"])
        // What is not as it was made, or in use, stays its own.
        try write("kept", to: cache + "/tasks/b/file")
        directories.release(task: "b", at: 1)
        _ = try directories.open(task: "c")
        chmod(cache + "/tasks/c", 0o700)
        directories.release(task: "c", at: 1)
        _ = try directories.open(task: "d")
        _ = try directories.open(task: "d")
        directories.release(task: "d", at: 1)
        _ = try directories.open(task: "e")
        directories.release(task: "e", isLeft: false, at: 1)
        #expect(try names() == ["b", "d"])
        // A job that comes again finds its own, be it another's by then or not.
        directories.release(task: "d", at: 1)
        _ = try directories.open(task: "b")
        #expect(try text(contents(of: cache + "/tasks/b/file")) == "kept")
        _ = try directories.open(task: "d")
        #expect(try names() == ["b", "d"])
        // A new life knows nothing of it, and removes what is empty.
        directories.release(task: "d", at: 1)
        _ = try self.directories()
        #expect(try names() == ["b"])
    }

    @Test func removalFollowsNoLinkAndReachesEverything() throws {
        let outside = temporary.path + "/outside"
        mkdir(outside, 0o755)
        try write("kept", to: outside + "/file")
        let directories = try directories(PruneLimits(age: .zero, count: 0, bytes: 0))
        _ = try directories.open(task: "a")
        let job = cache + "/tasks/a"
        symlink(outside, job + "/link")
        symlink(outside + "/file", job + "/filelink")
        mkfifo(job + "/pipe", 0o644)
        mkdir(job + "/locked", 0o000)
        // Deeper than the walk, and than a path may be long.
        var place = try Directory(path: job)
        for _ in 0..<300 { place = try place.make(String(repeating: "d", count: 50)) }
        try place.write([1], to: "deepest", durable: false)
        directories.release(task: "a", at: 0)
        #expect(directories.prune(at: 10).isEmpty)
        #expect(try Directory(path: cache + "/tasks").names().isEmpty)
        #expect(try text(contents(of: outside + "/file")) == "kept")
    }

    @Test(.enabled(if: getuid() == 0, "only root can mount"))
    func aFullDiskIsATypedErrorAndAMountIsLeftAlone() throws {
        mkdir(cache, 0o755)
        try #require(mount("none", cache, "tmpfs", 0, "size=64k,nr_inodes=8") == 0)
        defer { umount2(cache, Int32(MNT_DETACH)) }
        let directories = try directories(PruneLimits(age: .zero, count: 0, bytes: 0))
        var refused: TaskRunnerError?
        for number in 0..<20 where refused == nil {
            do {
                _ = try directories.open(task: "\(number)")
            } catch {
                refused = error
            }
        }
        #expect(refused?.code == .file && refused?.cause == .noSpace && refused?.isTransient == true)

        let inner = cache + "/tasks/0"
        try #require(mount("none", inner, "tmpfs", 0, "size=64k") == 0)
        defer { umount2(inner, Int32(MNT_DETACH)) }
        try write("kept", to: inner + "/file")
        directories.release(task: "0", at: 0)
        #expect(directories.prune(at: 10).map(\.code) == [.file])
        #expect(try text(contents(of: inner + "/file")) == "kept")
    }

    @Test func oneWorkerForEachCard() async throws {
        let path = temporary.path + "/lock"
        do {
            let lock = try WorkerLock(path: path)
            let error = #expect(throws: TaskRunnerError.self) { _ = try WorkerLock(path: path) }
            #expect(error?.code == .locked(pid: getpid()))
            #expect(error?.description.contains("\(getpid())") == true)
            _ = consume lock
        }
        _ = try WorkerLock(path: path)
        let missing = #expect(throws: TaskRunnerError.self) { _ = try WorkerLock(path: "/no/such/lock") }
        #expect(missing?.code == .file)
    }

    @Test func aJobMayDeleteItsOwnDirectory() async {
        await #expect(processExitsWith: .success) {
            let lab = try Lab()
            let cache = lab.directory.path + "/gpu0"
            let limits = PruneLimits(age: .seconds(60), count: 0, bytes: 0)
            let directories = try TaskDirectories(cachePath: cache, limits: limits)
            var spec = lab.spec(["sh", "-c", "rm -rf \(cache); echo gone; exit 5"])
            spec.directory = try directories.open(task: "a")
            let end = try await lab.run(spec)
            #expect(end.exit == .code(5) && text(end.stdout.tail) == "gone\n")
            directories.release(task: "a", at: 1)
            #expect(directories.prune(at: 1).isEmpty)
            #expect(try directories.open(task: "a").path == cache + "/tasks/a")
        }
    }
}
