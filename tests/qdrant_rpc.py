"""The same server as in `qdrant_server`, asked by gRPC: messages are Qdrant's own, as qdrant-client brings them along.

What they mean is left to Qdrant's local mode, translated by the converters of qdrant-client.
"""

# ruff: noqa: N802 (the names of methods are Qdrant's)

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as q
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc import collections_service_pb2_grpc, points_service_pb2_grpc

_DONE = q.PointsOperationResponse(result=q.UpdateResult(operation_id=0, status=q.UpdateStatus.Completed))


def _selected(request):
    payload, vectors = request.with_payload, request.with_vectors
    return {
        "with_payload": GrpcToRest.convert_with_payload_selector(payload)
        if payload.WhichOneof("selector_options")
        else False,
        "with_vectors": GrpcToRest.convert_with_vectors_selector(vectors)
        if vectors.WhichOneof("selector_options")
        else False,
    }


def _condition(request):
    """Return the filter of a request; empty lists in it would mean that nothing fits, to older local modes."""
    return _without_empty(GrpcToRest.convert_filter(request.filter)) if request.HasField("filter") else None


def _without_empty(found):
    if not isinstance(found, models.Filter):
        return found
    return models.Filter(
        must=[_without_empty(one) for one in found.must or ()] or None,
        should=[_without_empty(one) for one in found.should or ()] or None,
    )


def _answers(method):
    """Answer with what *method* returns; with a status where the local mode refuses."""

    def answer(self, request, context):
        self.asked.append(type(request).__name__)
        if self.status is not None:
            context.abort(self.status, "told to fail")
        with self.lock:
            try:
                return method(self, request)
            except ValueError as exc:
                missing = "not found" in str(exc)
                context.abort(grpc.StatusCode.NOT_FOUND if missing else grpc.StatusCode.INVALID_ARGUMENT, str(exc))

    return answer


class Points(points_service_pb2_grpc.PointsServicer):
    def __init__(self, server):
        self.server = server

    def __getattr__(self, name):
        return getattr(self.server, name)

    @_answers
    def Upsert(self, request):
        self.local.upsert(request.collection_name, [GrpcToRest.convert_point_struct(one) for one in request.points])
        return _DONE

    @_answers
    def Delete(self, request):
        self.local.delete(request.collection_name, GrpcToRest.convert_points_selector(request.points))
        return _DONE

    @_answers
    def UpdateBatch(self, request):
        operations = [GrpcToRest.convert_points_update_operation(one) for one in request.operations]
        self.local.batch_update_points(request.collection_name, operations)
        return q.UpdateBatchResponse(result=[_DONE.result] * len(operations))

    @_answers
    def CreateFieldIndex(self, request):
        self.local._client._get_collection(request.collection_name)
        return _DONE

    @_answers
    def Get(self, request):
        ids = [GrpcToRest.convert_point_id(one) for one in request.ids]
        found = self.local.retrieve(request.collection_name, ids, **_selected(request))
        return q.GetResponse(result=[RestToGrpc.convert_retrieved_point(one) for one in found])

    @_answers
    def Scroll(self, request):
        offset = GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None
        found, after = self.local.scroll(
            request.collection_name, limit=request.limit, offset=offset, **_selected(request)
        )
        next_one = None if after is None else RestToGrpc.convert_extended_point_id(after)
        return q.ScrollResponse(
            result=[RestToGrpc.convert_retrieved_point(one) for one in found], next_page_offset=next_one
        )

    @_answers
    def Count(self, request):
        found = self.local.count(request.collection_name, _condition(request))
        return q.CountResponse(result=q.CountResult(count=found.count))

    @_answers
    def Query(self, request):
        assert request.HasField("params")
        found = self.local.query_points(
            request.collection_name,
            query=GrpcToRest.convert_query(request.query),
            using=request.using,
            query_filter=_condition(request),
            limit=request.limit,
            score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
            **_selected(request),
        )
        return q.QueryResponse(result=[RestToGrpc.convert_scored_point(one) for one in found.points])


class Collections(collections_service_pb2_grpc.CollectionsServicer):
    def __init__(self, server):
        self.server = server

    def __getattr__(self, name):
        return getattr(self.server, name)

    @_answers
    def Create(self, request):
        vectors = GrpcToRest.convert_vectors_config(request.vectors_config)
        return q.CollectionOperationResponse(result=self.local.create_collection(request.collection_name, vectors))

    @_answers
    def Delete(self, request):
        return q.CollectionOperationResponse(result=self.local.delete_collection(request.collection_name))

    @_answers
    def List(self, request):
        found = self.local.get_collections().collections
        return q.ListCollectionsResponse(collections=[q.CollectionDescription(name=one.name) for one in found])

    @_answers
    def UpdateAliases(self, request):
        self.local.update_collection_aliases([GrpcToRest.convert_alias_operations(one) for one in request.actions])
        return q.CollectionOperationResponse(result=True)


class RpcServer:
    """Serves on a port of this machine until it is closed."""

    def __init__(self):
        self.local, self.lock = QdrantClient(":memory:"), threading.Lock()
        self.asked, self.status = [], None
        self._server = grpc.server(ThreadPoolExecutor(4))
        points_service_pb2_grpc.add_PointsServicer_to_server(Points(self), self._server)
        collections_service_pb2_grpc.add_CollectionsServicer_to_server(Collections(self), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self):
        self._server.stop(None).wait()
        self.local.close()
