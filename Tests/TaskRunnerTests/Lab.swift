import EventLoop
import Glibc
import Synchronization
import Testing

@testable import TaskRunner

/// A directory of its own that is removed at the end.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/taskrunner-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Errno.current }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        do throws(Errno) {
            try Directory(path: "/tmp").remove(String(path.dropFirst("/tmp/".count)))
        } catch {
            Issue.record("cannot remove \(path): \(error)")
        }
    }
}

/// A task runner with a directory. It owns all children of its process, so it lives in exit tests only.
final class Lab: Sendable {
    let directory: TemporaryDirectory
    let loop: EventLoop
    let runner: TaskRunner
    let place: WorkingDirectory
    private let lastAttempt = Mutex(0)

    init(
        confinement: TaskRunner.Confinement = TaskRunner.Confinement(),
        limits: TaskRunner.Limits = TaskRunner.Limits()
    ) throws {
        directory = try TemporaryDirectory()
        loop = try EventLoop()
        runner = try TaskRunner(
            loop: loop,
            workerMarker: directory.path,
            confinement: confinement,
            limits: limits
        )
        place = try WorkingDirectory(anywhere: directory.path)
    }

    deinit { loop.stop() }

    func spec(_ arguments: [String], environment: [(name: String, value: String)] = []) -> TaskSpec {
        let number = lastAttempt.withLock { last in
            last += 1
            return last
        }
        return TaskSpec(
            arguments: arguments,
            environment: [(name: "PATH", value: "/usr/bin:/bin")] + environment,
            directory: place,
            attemptID: "attempt-\(number)",
            logs: TaskSpec.LogFiles(stdout: "\(directory.path)/out\(number)", stderr: "\(directory.path)/err\(number)")
        )
    }

    func start(_ spec: TaskSpec, onOutput: TaskRunner.OutputHandler? = nil) throws -> Started {
        let started = Started()
        let task = try runner.start(spec) { stream, bytes, offset in
            started.took(bytes, stream)
            onOutput?(stream, bytes, offset)
        } onEnd: {
            started.end.fulfil($0)
        }
        started.task.fulfil(task)
        return started
    }

    func run(_ spec: TaskSpec) async throws -> TaskEnd { try await start(spec).end.value }
    func shell(_ line: String) async throws -> TaskEnd { try await run(spec(["/bin/sh", "-c", line])) }
}

/// A started task as a test watches it.
final class Started: Sendable {
    let task = Promise<RunningTask>()
    let end = Promise<TaskEnd>()
    private let lines = Mutex<(text: [UInt8], waiting: [(count: Int, Promise<[String]>)])>(([], []))

    func took(_ bytes: ArraySlice<UInt8>, _ stream: TaskStream) {
        guard stream == .stdout else { return }
        let due = lines.withLock { state -> [(Promise<[String]>, [String])] in
            // The first lines are all that a test waits for.
            guard state.text.count < 4096 else { return [] }
            state.text += bytes
            let found = Self.lines(of: state.text)
            let due = state.waiting.filter { $0.count <= found.count }.map(\.1)
            state.waiting.removeAll { $0.count <= found.count }
            return due.map { ($0, found) }
        }
        for (promise, found) in due { promise.fulfil(found) }
    }

    /// Waits until the task has printed so many whole lines.
    func lines(_ count: Int) async -> [String] {
        let promise = Promise<[String]>()
        let found = lines.withLock { state in
            let found = Self.lines(of: state.text)
            if found.count < count { state.waiting.append((count, promise)) }
            return found
        }
        return found.count >= count ? found : await promise.value
    }

    private static func lines(of text: [UInt8]) -> [String] {
        text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).dropLast()
            .map { String(decoding: $0, as: UTF8.self) }
    }
}

/// A value that comes once.
final class Promise<Value: Sendable>: Sendable {
    private let state = Mutex<(value: Value?, waiting: [CheckedContinuation<Value, Never>])>((nil, []))

    func fulfil(_ value: Value) {
        let waiting = state.withLock { state in
            defer { state.waiting = [] }
            state.value = value
            return state.waiting
        }
        for continuation in waiting { continuation.resume(returning: value) }
    }

    var value: Value {
        get async {
            await withCheckedContinuation { continuation in
                let value = state.withLock { state in
                    if state.value == nil { state.waiting.append(continuation) }
                    return state.value
                }
                if let value { continuation.resume(returning: value) }
            }
        }
    }
}

func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

func contents(of path: String, limit: Int = 1 << 30) throws -> [UInt8] {
    try #require(try Descriptor(path: path, flags: O_RDONLY).readAll(limit: limit))
}

func write(_ text: String, to path: String, mode: mode_t = 0o644) throws {
    try Descriptor(path: path, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: mode).write(Array(text.utf8)[...])
}

/// Whether a process with this pid lives.
func lives(_ pid: Int32) -> Bool { ProcessEntry(pid: pid).map { !$0.isDead } ?? false }
