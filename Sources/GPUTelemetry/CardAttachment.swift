import CDRM
import Glibc
import Synchronization

/// The open handles of a card's driver. Only the sensor of the card's signs and a probe open them, since that may
/// hang; the others use what is open.
final class CardAttachment: Sendable {
    private let card: Card
    private let state = Mutex(State())

    private struct State {
        var amdgpu: AMDGPUDevice?
        var nvml: NVML?
        var nvmlDevice: NVMLDevice?
        var fault: SensorFault = .unsupported
        var retryAt: ContinuousClock.Instant?
        var watchesXIDs = false
    }

    /// A driver that refused is asked again after this long.
    private static let retryInterval = Duration.seconds(30)

    init(_ card: Card) { self.card = card }

    var usesNVML: Bool { card.driver == "nvidia" }

    var amdgpu: AMDGPUDevice? { state.withLock { $0.amdgpu } }

    /// The card in NVML, or why it cannot be had.
    func nvmlDevice() throws(SensorFault) -> NVMLDevice {
        let (device, fault) = state.withLock { ($0.nvmlDevice, $0.fault) }
        guard let device else { throw fault }
        return device
    }

    /// Opens what is not open yet; throws what the driver says when it refuses, again until it is asked anew.
    func attach() throws(SensorFault) {
        let now = ContinuousClock.now
        let (isOpen, retryAt, fault) = state.withLock {
            ($0.amdgpu != nil || $0.nvmlDevice != nil, $0.retryAt, $0.fault)
        }
        if isOpen { return }
        if let retryAt, now < retryAt { throw fault }
        do {
            try open()
        } catch {
            state.withLock { state in
                state.fault = error
                state.retryAt = now + Self.retryInterval
            }
            throw error
        }
    }

    /// Lets go of the driver and opens it anew, whatever it said before; wakes the card.
    func reattach() throws(SensorFault) {
        state.withLock { $0 = State() }
        try attach()
    }

    private func open() throws(SensorFault) {
        if usesNVML {
            let nvml = try loadedNVML()
            let device = try nvml.device(at: card.address)
            state.withLock { $0.nvmlDevice = device }
        } else if card.driver == "amdgpu", let render = card.nodes.render {
            let device = try AMDGPUDevice(renderNode: render)
            state.withLock { $0.amdgpu = device }
        }
    }

    private func loadedNVML() throws(SensorFault) -> NVML {
        if let nvml = state.withLock({ $0.nvml }) { return nvml }
        do {
            let nvml = try NVML()
            state.withLock { $0.nvml = nvml }
            return nvml
        } catch {
            throw error.fault
        }
    }

    /// The XIDs since the last call; none when this NVML cannot tell.
    func takeXIDs() -> [UInt64] {
        do {
            let device = try nvmlDevice()
            if state.withLock({ !$0.watchesXIDs }) {
                try device.watchXIDs()
                state.withLock { $0.watchesXIDs = true }
            }
            return try device.takeXIDs()
        } catch {
            // A card that refuses is told by the code of its other calls.
            return []
        }
    }
}
