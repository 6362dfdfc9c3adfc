import Dispatch
import Glibc
import Synchronization
import Testing

@testable import EventLoop

@Suite(.timeLimit(.minutes(1)))
struct LoopTests {
    /// Has things done on the loop in the order that they are asked for there.
    private func onLoop<Result: Sendable>(_ loop: EventLoop, _ body: @escaping @Sendable () -> Result) async -> Result {
        await withCheckedContinuation { continuation in loop.post { continuation.resume(returning: body()) } }
    }

    @Test func tasksAndTheirChildrenRunOnTheLoopsThread() async throws {
        let loop = try EventLoop()
        defer { loop.stop() }
        let (own, child) = await withTaskExecutorPreference(loop) {
            async let child = isOn(loop)
            return (isOnNow(loop), await child)
        }
        #expect(own && child)
        #expect(!loop.isCurrent)
    }

    private func isOn(_ loop: EventLoop) async -> Bool { loop.isCurrent }
    private func isOnNow(_ loop: EventLoop) -> Bool { loop.isCurrent }

    /// Whatever tasks do for one message is sent at once: what is posted runs when no task can go on.
    @Test func whatIsPostedWaitsForTheTasksThatCanGoOn() async throws {
        let loop = try EventLoop()
        defer { loop.stop() }
        let order = Order()
        await withTaskExecutorPreference(loop) {
            loop.post { order.note("posted") }
            async let first: Void = step(order)
            async let second: Void = step(order)
            async let third: Void = step(order)
            _ = await (first, second, third)
        }
        _ = await onLoop(loop) { true }
        #expect(order.all == Array(repeating: "task", count: 6) + ["posted"])
    }

    private func step(_ order: Order) async {
        order.note("task")
        await Task.yield()
        order.note("task")
    }

    private final class Order: Sendable {
        private let notes = Mutex<[String]>([])
        var all: [String] { notes.withLock { $0 } }
        func note(_ text: String) { notes.withLock { $0.append(text) } }
    }

    @Test func manyThreadsHandOverWithoutLosingAnything() async throws {
        let loop = try EventLoop()
        defer { loop.stop() }
        let (threads, each) = (8, 5000)
        let count = Mutex(0)
        await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
            for _ in 0..<threads {
                DispatchQueue.global().async {
                    for _ in 0..<each {
                        loop.post {
                            let isLast = count.withLock { count in
                                count += 1
                                return count == threads * each
                            }
                            if isLast { done.resume() }
                        }
                    }
                }
            }
        }
        #expect(count.withLock { $0 } == threads * each)
    }

    @Test func deadlinesComeInTheirOrderUnlessTheyAreCancelled() async throws {
        let loop = try EventLoop()
        defer { loop.stop() }
        let order = Mutex<[Int]>([])
        await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
            loop.schedule(after: .milliseconds(40)) {
                order.withLock { $0.append(3) }
                done.resume()
            }
            loop.schedule(after: .milliseconds(20)) { order.withLock { $0.append(2) } }
            loop.schedule(after: .zero) { order.withLock { $0.append(1) } }
            loop.cancel(loop.schedule(after: .milliseconds(10)) { order.withLock { $0.append(0) } })
        }
        #expect(order.withLock { $0 } == [1, 2, 3])
    }

    @Test func aDescriptorIsHeardUntilItIsLetGo() async throws {
        let loop = try EventLoop()
        defer { loop.stop() }
        let pair = try SocketPair()
        let token = loop.makeToken()
        let heard = Mutex<[UInt8]>([])
        await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
            let watched = Result { () throws(Errno) in
                try loop.watch(pair.near, as: token) {
                    let bytes = pair.receive()
                    heard.withLock { $0 += bytes }
                    if bytes.last == 2 {
                        loop.unwatch(token, descriptor: pair.near)
                        done.resume()
                    }
                }
            }
            #expect(throws: Never.self) { try watched.get() }
            pair.send([1])
            pair.send([2])
        }
        pair.send([3])
        _ = await onLoop(loop) { true }
        #expect(heard.withLock { $0 } == [1, 2])
        #expect(pair.receive() == [3])
    }

    @Test func roomToWriteIsHeardOnlyWhileItIsWanted() async throws {
        let loop = try EventLoop()
        defer { loop.stop() }
        let pair = try SocketPair()
        let token = loop.makeToken()
        let calls = Mutex(0)
        await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
            let watched = Result { () throws(Errno) in
                try loop.watch(pair.near, as: token) {
                    let isFirst = calls.withLock { calls in
                        calls += 1
                        return calls == 1
                    }
                    do throws(Errno) {
                        try loop.setOutput(token, descriptor: pair.near, wanted: false)
                    } catch {
                        Issue.record("\(error)")
                    }
                    if isFirst { done.resume() }
                }
                try loop.setOutput(token, descriptor: pair.near, wanted: true)
            }
            #expect(throws: Never.self) { try watched.get() }
        }
        _ = await onLoop(loop) { true }
        #expect(calls.withLock { $0 } == 1)
        #expect(throws: Errno(ENOENT)) { try loop.setOutput(loop.makeToken(), descriptor: pair.far, wanted: true) }
        loop.unwatch(token, descriptor: pair.near)
    }

    @Test func aStoppedLoopEndsWhatItHasAndIsLetGo() async throws {
        weak var gone: EventLoop?
        do {
            let loop = try EventLoop()
            gone = loop
            let ran = Mutex(0)
            await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
                loop.post {
                    loop.stop()
                    loop.post { ran.withLock { $0 += 1 } }
                    loop.post { done.resume() }
                }
            }
            #expect(ran.withLock { $0 } == 1)
        }
        while gone != nil { await Task.yield() }
    }
}
